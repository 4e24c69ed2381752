"""SQLite: one process, one writer thread, durable commits in groups."""

from promptpipe.storage.sqlite.database import check_sqlite_schema, migrate_sqlite
from promptpipe.storage.sqlite.store import open_sqlite_store

__all__ = ["check_sqlite_schema", "migrate_sqlite", "open_sqlite_store"]
