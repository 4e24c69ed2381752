"""A source in an SQLite file."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import trio

from promptpipe.importing.reading import MAX_CHARS
from promptpipe.importing.shape import check_shape
from promptpipe.importing.source import Placed
from promptpipe.model.errors import SettingsError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from promptpipe.importing.reading import OldRow
    from promptpipe.importing.tables import Table

T = TypeVar("T")

LOCK_SECONDS = 5.0
"""How long the old service, should it still run, may hold the file."""


class SqliteSource:
    """`Source`. Rows are in the order in which they were inserted: that of their rowids."""

    def __init__(self, path: Path, connection: sqlite3.Connection, columns: Mapping[str, frozenset[str]]) -> None:
        self._path = path
        self._connection = connection
        self._columns = columns

    @property
    def shown(self) -> str:
        """See `Source.shown`."""
        return str(self._path)

    @property
    def fingerprint(self) -> str:
        """See `Source.fingerprint`: a file that was written to since is another."""
        status = self._path.stat()
        told = f"{self._path.resolve()}\n{status.st_size}\n{status.st_mtime_ns}"
        return hashlib.sha256(told.encode(errors="replace")).hexdigest()[:32]

    async def count(self, table: Table) -> int:
        """See `Source.count`."""
        if table.name not in self._columns:
            return 0
        [row] = await self._ask(f"SELECT count(*) FROM {table.name}", ())  # noqa: S608  our names
        count: int = row[0]
        return count

    async def page(self, table: Table, after: str | None, limit: int) -> Sequence[Placed]:
        """See `Source.page`."""
        selected = self._selected(table)
        if not selected:
            return ()
        sql = f"SELECT rowid AS position, {selected} FROM {table.name} WHERE rowid > ? ORDER BY rowid LIMIT ?"  # noqa: S608  our names
        first = -(1 << 63) if after is None else int(after)
        rows = await self._ask(sql, [first, limit])
        return [Placed(str(row["position"]), {name: row[name] for name in row.keys()[1:]}) for row in rows]

    async def find(self, table: Table, by: Mapping[str, Sequence[str]]) -> Sequence[OldRow]:
        """See `Source.find`."""
        selected = self._selected(table)
        if not selected or not by.keys() <= self._columns[table.name] or not all(by.values()):
            return ()
        wanted = " AND ".join(f"{name} IN ({', '.join('?' * len(values))})" for name, values in by.items())
        sql = f"SELECT {selected} FROM {table.name} WHERE {wanted}"  # noqa: S608  our names
        rows = await self._ask(sql, [value for values in by.values() for value in values])
        return [dict(row) for row in rows]

    def _selected(self, table: Table) -> str:
        there = self._columns.get(table.name, frozenset())
        return ", ".join(
            f"substr(CAST({name} AS TEXT), 1, {MAX_CHARS + 1}) AS {name}" for name in table.columns if name in there
        )

    async def _ask(self, sql: str, values: Sequence[object]) -> list[sqlite3.Row]:
        return await in_thread(self.shown, lambda: self._connection.execute(sql, values).fetchall())


@asynccontextmanager
async def open_sqlite_source(path: Path) -> AsyncIterator[SqliteSource]:
    """Open the file at *path* for reading, as it is now; raise as `open_source`."""
    connection = await in_thread(str(path), lambda: _connect(path))
    try:
        columns = await in_thread(str(path), lambda: _columns(connection))
        check_shape(columns, str(path))
        yield SqliteSource(path, connection, columns)
    finally:
        connection.close()


async def in_thread(shown: str, function: Callable[[], T]) -> T:
    """Return what *function* finds in the file, on a thread of Trio's; raise SQLite's errors as ours."""
    try:
        return await trio.to_thread.run_sync(function)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise SettingsError(f"--from: {shown} is no SQLite database") from error
        raise StoreUnavailableError(f"cannot read {shown}: {error}") from error


def _connect(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise SettingsError(f"--from: there is no file {path}")
    uri = f"{path.resolve().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=LOCK_SECONDS)
    connection.row_factory = sqlite3.Row
    connection.text_factory = lambda value: value.decode(errors="replace")
    connection.execute("BEGIN")
    return connection


def _columns(connection: sqlite3.Connection) -> dict[str, frozenset[str]]:
    rows = connection.execute(
        "SELECT t.name AS table_name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table'"
    )
    found: dict[str, set[str]] = {}
    for table, column in rows:
        found.setdefault(table, set()).add(column)
    return {table: frozenset(names) for table, names in found.items()}
