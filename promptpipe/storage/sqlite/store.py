"""The SQLite back end, put together."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from promptpipe.storage.sqlite.database import open_database
from promptpipe.storage.sqlite.history import SqliteHistory
from promptpipe.storage.sqlite.inbound import SqliteInbound
from promptpipe.storage.sqlite.job_queues import SqliteJobs
from promptpipe.storage.sqlite.leases import SqliteLeases
from promptpipe.storage.sqlite.mailboxes import SqliteMailboxes
from promptpipe.storage.sqlite.outbox import SqliteOutbox
from promptpipe.storage.sqlite.participants import SqliteParticipants
from promptpipe.storage.sqlite.readers import ThreadReaders
from promptpipe.storage.sqlite.recovery import SqliteRecovery
from promptpipe.storage.sqlite.writer import ThreadWriter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from promptpipe.model.ids import IdSource, WorkerId
    from promptpipe.model.leases import Work
    from promptpipe.model.messages import InDoubtRules
    from promptpipe.ports.clock import Clock
    from promptpipe.storage.sqlite.database import Database
    from promptpipe.storage.sqlite.readers import Readers
    from promptpipe.storage.sqlite.writer import Connect, Writer


class SqliteStore:
    """`ports.store.Store` on SQLite."""

    def __init__(self, database: Database, worker: WorkerId, rules: InDoubtRules) -> None:
        self._database = database
        self.jobs = SqliteJobs(database)
        self.mailboxes = SqliteMailboxes(database)
        self.outbox = SqliteOutbox(database, rules)
        self.inbound = SqliteInbound(database)
        self.history = SqliteHistory(database)
        self.participants = SqliteParticipants(database)
        self.leases = SqliteLeases(database, rules)
        self.recovery = SqliteRecovery(database, worker, rules)

    async def probe(self) -> None:
        """See `Store.probe`."""
        await self._database.write(lambda tx: tx.next_fence())


@asynccontextmanager
async def open_sqlite_store(
    path: Path,
    *,
    clock: Clock,
    ids: IdSource,
    worker: WorkerId,
    rules: InDoubtRules,
    on_commit: Callable[[Work], None],
    make_writer: Callable[[Connect], Writer] = ThreadWriter,
    make_readers: Callable[[Connect], Readers] = ThreadReaders,
) -> AsyncIterator[SqliteStore]:
    """Open the database at *path* for as long as the context lasts; see `open_database` for its errors.

    *worker* is the name under which this process leases work; any other's leases are stale. *on_commit* is called,
    in the Trio thread, for each kind of work that a commit made due.
    """
    opened = open_database(path, clock, ids, on_commit, make_writer=make_writer, make_readers=make_readers)
    async with opened as database:
        yield SqliteStore(database, worker, rules)
