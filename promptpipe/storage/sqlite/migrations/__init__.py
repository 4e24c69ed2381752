"""The schema on SQLite: all migrations that are missing are applied in one transaction."""

from __future__ import annotations

import sqlite3
from importlib.resources import files
from typing import TYPE_CHECKING

from promptpipe.storage.migrations import load_migrations, missing_migrations

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from promptpipe.storage.migrations import Migration

_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations
    (number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT
"""


def known_migrations() -> list[Migration]:
    """Return the migrations of this program, in order."""
    return load_migrations(files(__name__))


def migrate(connection: sqlite3.Connection, now: int, known: Sequence[Migration] | None = None) -> list[Migration]:
    """Bring the schema up to date by the *known* migrations and return those applied; *now* in microseconds.

    Raise `SchemaError` when the database has a migration that this program does not know, or knows differently.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(_TABLE)
        missing = find_missing(connection, known)
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


def find_missing(connection: sqlite3.Connection, known: Sequence[Migration] | None = None) -> list[Migration]:
    """Return the migrations that are yet to be applied, without changing anything; raise `SchemaError` as `migrate`."""
    applied = {}
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'schema_migrations'").fetchone():
        rows = connection.execute("SELECT number, name, checksum FROM schema_migrations")
        applied = {number: (name, checksum) for number, name, checksum in rows}
    return missing_migrations(applied, known_migrations() if known is None else known)


def _statements(sql: str) -> Iterator[str]:
    """Split a migration into its statements; `executescript` would commit in between."""
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
