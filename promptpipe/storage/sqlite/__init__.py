"""SQLite: one process, one writer thread, durable commits in groups."""

from promptpipe.storage.sqlite.store import SqliteStore, open_sqlite_store

__all__ = ["SqliteStore", "open_sqlite_store"]
