"""The schema's history: numbered SQL files, applied once each, all that are missing in one transaction."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from promptpipe.model.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_NAME = re.compile(r"(\d{4})_\w+\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the SQL."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def known_migrations() -> list[Migration]:
    """Return the migrations of this program, in order."""
    return [
        Migration(int(match[1]), match[0], file.read_text(encoding="utf-8"))
        for file in sorted(files(__name__).iterdir(), key=lambda item: item.name)
        if (match := _NAME.fullmatch(file.name))
    ]


def migrate(connection: sqlite3.Connection, now: int, known: Sequence[Migration] | None = None) -> list[Migration]:
    """Bring the schema up to date by the *known* migrations and return those applied; *now* in microseconds.

    Raise `SchemaError` when the database has a migration that this program does not know, or knows differently.
    """
    known = known_migrations() if known is None else known
    connection.execute("BEGIN IMMEDIATE")
    try:
        applied = _applied(connection)
        _check(applied, known)
        missing = [migration for migration in known if migration.number not in applied]
        for migration in missing:
            for statement in _statements(migration.sql):
                connection.execute(statement)
            connection.execute(
                "INSERT INTO schema_migrations (number, name, checksum, applied_at) VALUES (?, ?, ?, ?)",
                (migration.number, migration.name, migration.checksum, now),
            )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return missing


def _applied(connection: sqlite3.Connection) -> dict[int, tuple[str, str]]:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations"
        " (number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT"
    )
    rows = connection.execute("SELECT number, name, checksum FROM schema_migrations ORDER BY number")
    return {number: (name, checksum) for number, name, checksum in rows}


def _check(applied: dict[int, tuple[str, str]], known: Sequence[Migration]) -> None:
    checksums = {migration.number: migration.checksum for migration in known}
    for number, (name, checksum) in applied.items():
        if number not in checksums:
            raise SchemaError(f"the database has migration {name}: it belongs to a newer PromptPipe than this")
        if checksums[number] != checksum:
            raise SchemaError(f"migration {name} was changed after it had been applied to this database")


def _statements(sql: str) -> Iterator[str]:
    """Split a migration into its statements; `executescript` would commit in between."""
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
