"""SQLite: one process, one writer thread, durable commits in groups."""

from promptpipe.storage.sqlite.store import open_sqlite_store

__all__ = ["open_sqlite_store"]
