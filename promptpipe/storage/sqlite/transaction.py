"""One transaction, as the code of this package sees it: statements by name, one instant, ids, fences."""

from __future__ import annotations

import sqlite3
from importlib.resources import files
from typing import TYPE_CHECKING

from promptpipe.storage.statements import load_statements

if TYPE_CHECKING:
    from promptpipe.model.ids import IdSource
    from promptpipe.model.leases import Work

STATEMENTS = load_statements(files("promptpipe.storage.sqlite").joinpath("queries"))

PERMANENT_DATA_ERRORS = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    UnicodeError,
    ValueError,
)
"""What SQLite and its driver raise for values that can never be stored."""


class Transaction:
    """A write or read transaction. *now* is one instant for all of it, in microseconds."""

    __slots__ = ("_connection", "ids", "now", "woken")

    def __init__(self, connection: sqlite3.Connection, now: int, ids: IdSource) -> None:
        self._connection = connection
        self.now = now
        self.ids = ids
        self.woken: set[Work] = set()

    def run(self, statement: str, /, **values: object) -> int:
        """Run a statement and return how many rows it changed."""
        return self._connection.execute(STATEMENTS[statement], values).rowcount

    def one(self, statement: str, /, **values: object) -> sqlite3.Row | None:
        """Run a statement and return its row, or None."""
        row: sqlite3.Row | None = self._connection.execute(STATEMENTS[statement], values).fetchone()
        return row

    def the(self, statement: str, /, **values: object) -> sqlite3.Row:
        """Run a statement that always finds its row, and return that; raise `LookupError` otherwise."""
        row = self.one(statement, **values)
        if row is None:
            raise LookupError(f"{statement} found nothing")
        return row

    def all(self, statement: str, /, **values: object) -> list[sqlite3.Row]:
        """Run a statement and return its rows."""
        return self._connection.execute(STATEMENTS[statement], values).fetchall()

    def next_fence(self) -> int:
        """Return a number that no lease of this store had before."""
        fence: int = self.the("next_fence")["value"]
        return fence

    def wake(self, work: Work) -> None:
        """Once this has committed, wake the runner of *work*."""
        self.woken.add(work)

    def savepoint(self) -> Savepoint:
        """Return a context whose statements are undone when it is left by an exception."""
        return Savepoint(self._connection)


class Savepoint:
    """A part of a transaction that can fail by itself."""

    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("SAVEPOINT part")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # After a disk error SQLite has rolled back everything already, and there is no savepoint left.
        if self._connection.in_transaction:
            if kind is not None:
                self._connection.execute("ROLLBACK TO part")
            self._connection.execute("RELEASE part")
