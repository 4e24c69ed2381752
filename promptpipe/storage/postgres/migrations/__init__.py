"""The schema on PostgreSQL: all migrations that are missing are applied in one transaction, by one instance."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

from promptpipe.storage.migrations import load_migrations, missing_migrations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptpipe.storage.migrations import Migration
    from promptpipe.storage.postgres.driver import Connection

_LOCK = 0x50726F6D70745069
"""The name of the lock under which a schema is changed: any number, the same for ever."""

_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations
    (number integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, applied_at timestamptz NOT NULL)
"""


def known_migrations() -> list[Migration]:
    """Return the migrations of this program, in order."""
    return load_migrations(files(__name__))


async def migrate(connection: Connection[Any], known: Sequence[Migration] | None = None) -> list[Migration]:
    """Bring the schema up to date by the *known* migrations and return those applied.

    Instances that start at once wait for the one that does it. Raise `SchemaError` when the database has a migration
    that this program does not know, or knows differently.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        missing = await find_missing(connection, known)
        if missing:
            await connection.execute(_TABLE)
        for migration in missing:
            await connection.execute(migration.sql.encode())  # without values it may be several statements
            await connection.execute(
                "INSERT INTO schema_migrations (number, name, checksum, applied_at)"
                " VALUES (%s, %s, %s, statement_timestamp())",
                [migration.number, migration.name, migration.checksum],
            )
    return missing


async def find_missing(connection: Connection[Any], known: Sequence[Migration] | None = None) -> list[Migration]:
    """Return the migrations that are yet to be applied, without changing anything; raise `SchemaError` as `migrate`."""
    cursor = await connection.execute("SELECT to_regclass('schema_migrations') IS NOT NULL AS there")
    [there] = await cursor.fetchall()
    applied = {}
    if there["there"]:
        cursor = await connection.execute("SELECT number, name, checksum FROM schema_migrations")
        applied = {row["number"]: (row["name"], row["checksum"]) for row in await cursor.fetchall()}
    return missing_migrations(applied, known_migrations() if known is None else known)
