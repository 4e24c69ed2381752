"""A transaction on SQLite. Nobody else writes meanwhile, and nothing in it ever waits."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, ClassVar, TypeVar

from promptpipe.storage.sqlite.values import Columns, as_stored, instant
from promptpipe.storage.statements import load_statements
from promptpipe.storage.transactions.transaction import Last, Transaction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
    from datetime import datetime
    from typing import Any

    from promptpipe.model.ids import IdSource
    from promptpipe.model.leases import Work
    from promptpipe.storage.transactions.transaction import Row

T = TypeVar("T")

STATEMENTS = {
    name: tuple(part.strip() for part in sql.split(";\n"))
    for name, sql in load_statements(files("promptpipe.storage.sqlite").joinpath("queries")).items()
}
"""By name; in several parts where PostgreSQL changes two tables in one statement. One of them may return rows."""

_columns: dict[str, Columns] = {}
"""Those of each statement, once it has been run."""

_PERMANENT_DATA_ERRORS = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    UnicodeError,
    ValueError,
)
"""What SQLite and its driver raise for values that can never be stored."""


class SqliteTransaction(Transaction):
    """See `Transaction`. *now* is one instant for all of it, in microseconds."""

    contended: ClassVar[bool] = False

    def __init__(self, connection: sqlite3.Connection, now: int, ids: IdSource) -> None:
        super().__init__(ids)
        self._connection = connection
        self._now = now

    async def run(self, statement: str, /, **values: object) -> None:
        """See `Transaction.run`."""
        for _ in self._execute(statement, values):
            pass

    async def count(self, statement: str, /, **values: object) -> int:
        """See `Transaction.count`."""
        return sum(cursor.rowcount for cursor in self._execute(statement, values))

    async def all(self, statement: str, /, **values: object) -> Sequence[Row]:
        """See `Transaction.all`."""
        found: list[Row] = []
        for cursor in self._execute(statement, values):
            if cursor.description and (rows := cursor.fetchall()):
                columns = _columns.get(statement)
                if columns is None:
                    columns = _columns[statement] = Columns(cursor.description)
                found = [columns.row(row) for row in rows]
        return found

    async def several(self, *statements: tuple[str, Mapping[str, object]]) -> list[Sequence[Row]]:
        """See `Transaction.several`."""
        return [await self.all(name, **values) for name, values in statements]

    async def last(
        self, *statements: tuple[str, Mapping[str, object]], then: Callable[[list[Sequence[Row]]], T]
    ) -> Last[T]:
        """See `Transaction.last`."""
        found = await self.several(*statements)

        async def rows() -> list[Sequence[Row]]:
            return found

        return Last(rows, then)

    async def now(self) -> datetime:
        """See `Transaction.now`."""
        return instant(self._now)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """See `Transaction.savepoint`."""
        self._connection.execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            # After a disk error SQLite has rolled back everything already, and there is no savepoint left.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK TO part")
            raise
        finally:
            if self._connection.in_transaction:
                self._connection.execute("RELEASE part")

    def is_permanent(self, error: Exception) -> bool:
        """See `Transaction.is_permanent`."""
        return isinstance(error, _PERMANENT_DATA_ERRORS)

    async def lock_lanes(self, lanes: Collection[tuple[Work, str]]) -> None:
        """Do nothing: one transaction is written at a time."""

    def lock_of(self, queue: str) -> list[tuple[str, Mapping[str, object]]]:  # noqa: ARG002  the interface has it
        """Return nothing: one transaction is written at a time."""
        return []

    async def lock_names(self, names: Collection[str]) -> None:
        """Do nothing: one transaction is written at a time."""

    def _execute(self, statement: str, values: dict[str, object]) -> Iterator[sqlite3.Cursor]:
        stored = as_stored(values) | {"now": self._now}
        for part in STATEMENTS[statement]:
            yield self._connection.execute(part, stored)


def run_at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise RuntimeError("a transaction on SQLite cannot wait for anything but its own statements")
