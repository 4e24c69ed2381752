"""A source on a PostgreSQL server."""

from __future__ import annotations

import hashlib
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from psycopg import DatabaseError, OperationalError, ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from promptpipe.importing.reading import MAX_CHARS
from promptpipe.importing.shape import check_shape
from promptpipe.importing.source import Placed
from promptpipe.model.errors import SettingsError, StoreUnavailableError
from promptpipe.storage.postgres.driver import Connection
from promptpipe.storage.postgres.errors import as_refusal, in_one_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from promptpipe.importing.reading import OldRow
    from promptpipe.importing.tables import Table

CONNECT_SECONDS = 10

_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_COLUMNS = """
SELECT table_name, column_name, data_type FROM information_schema.columns
WHERE table_schema = ANY (current_schemas(false))
"""
_NAME = (
    "SELECT datname, oid::text AS oid, current_schema() AS schema FROM pg_database WHERE datname = current_database()"
)


class PostgresSource:
    """`Source`. The order of rows is that of the table's columns, each as its type has it."""

    def __init__(
        self, shown: str, fingerprint: str, connection: Connection[dict[str, Any]], types: Mapping[str, dict[str, str]]
    ) -> None:
        self.shown = shown
        self.fingerprint = fingerprint
        self._connection = connection
        self._types = types

    async def count(self, table: Table) -> int:
        """See `Source.count`."""
        if table.name not in self._types:
            return 0
        [row] = await self._ask(f"SELECT count(*) AS rows FROM {table.name}", ())  # noqa: S608  our names
        count: int = row["rows"]
        return count

    async def page(self, table: Table, after: str | None, limit: int) -> Sequence[Placed]:
        """See `Source.page`. A position is the values of the ordering columns, a JSON array."""
        selected = self._selected(table)
        if not selected:
            return ()
        types = self._types[table.name]
        order = ", ".join(table.ordered_by)
        places = ", ".join(f"{name}::text AS position_{name}" for name in table.ordered_by)
        values: list[object] = []
        beyond = ""
        if after is not None:
            values = list(json.loads(after))
            beyond = f"WHERE ({order}) > ({', '.join(f'%s::{types[name]}' for name in table.ordered_by)})"
        sql = f"SELECT {places}, {selected} FROM {table.name} {beyond} ORDER BY {order} LIMIT {limit}"  # noqa: S608  our names
        rows = await self._ask(sql, values)
        return [
            Placed(
                json.dumps([row.pop(f"position_{name}") for name in table.ordered_by]),
                row,
            )
            for row in rows
        ]

    async def find(self, table: Table, by: Mapping[str, Sequence[str]]) -> Sequence[OldRow]:
        """See `Source.find`."""
        selected = self._selected(table)
        if not selected or not by.keys() <= self._types[table.name].keys() or not all(by.values()):
            return ()
        wanted = " AND ".join(f"{name}::text = ANY (%s)" for name in by)
        sql = f"SELECT {selected} FROM {table.name} WHERE {wanted}"  # noqa: S608  our names
        return await self._ask(sql, [list(values) for values in by.values()])

    def _selected(self, table: Table) -> str:
        there = self._types.get(table.name, {})
        return ", ".join(
            f"substr({name}::text, 1, {MAX_CHARS + 1}) AS {name}" for name in table.columns if name in there
        )

    async def _ask(self, sql: str, values: Sequence[object]) -> list[dict[str, Any]]:
        try:
            cursor = await self._connection.execute(sql.encode(), values)
            return await cursor.fetchall()
        except DatabaseError as error:
            raise StoreUnavailableError(f"cannot read {self.shown}: {in_one_line(error)}") from error


@asynccontextmanager
async def open_postgres_source(url: str) -> AsyncIterator[PostgresSource]:
    """Connect, and read all that is there as it is now; raise as `open_source`."""
    shown, connection = await _connected(url)
    async with connection:
        try:
            for statement in (_BEGIN, "SET LOCAL datestyle = 'ISO'", "SET LOCAL timezone = 'UTC'"):
                await connection.execute(statement)
            columns = await (await connection.execute(_COLUMNS)).fetchall()
            fingerprint = await _fingerprint(shown, connection)
        except DatabaseError as error:
            raise StoreUnavailableError(f"cannot read {shown}: {in_one_line(error)}") from error
        types: dict[str, dict[str, str]] = {}
        for column in columns:
            types.setdefault(column["table_name"], {})[column["column_name"]] = column["data_type"]
        check_shape({table: frozenset(names) for table, names in types.items()}, shown)
        yield PostgresSource(shown, fingerprint, connection, types)
        await connection.execute("ROLLBACK")


async def _connected(url: str) -> tuple[str, Connection[dict[str, Any]]]:
    try:
        said = conninfo_to_dict(url)
        place = ":".join(str(said[name]) for name in ("host", "port") if name in said)
        shown = f"postgresql://{place}/{said.get('dbname', '')}"
        defaults: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS, "application_name": "promptpipe import"}
        return shown, await Connection.connect(
            url,
            autocommit=True,
            row_factory=dict_row,
            **{name: value for name, value in defaults.items() if name not in said},
        )
    except ProgrammingError as error:
        raise SettingsError("--from: the URL is none that PostgreSQL understands") from error
    except DatabaseError as error:
        if isinstance(error, OperationalError) and as_refusal(error) is not None:
            raise SettingsError(f"--from: {in_one_line(error)}") from error
        raise StoreUnavailableError(f"cannot connect to the database to import from: {in_one_line(error)}") from error


async def _fingerprint(shown: str, connection: Connection[dict[str, Any]]) -> str:
    [row] = await (await connection.execute(_NAME)).fetchall()
    return hashlib.sha256(json.dumps([shown, row]).encode()).hexdigest()[:32]
