"""The SQLite back end, put together."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from promptpipe.ports.metrics import SILENT
from promptpipe.storage.sqlite.database import open_database, open_to_read
from promptpipe.storage.sqlite.readers import ThreadReaders
from promptpipe.storage.sqlite.writer import ThreadWriter
from promptpipe.storage.transactions.measured import MeasuredDatabase
from promptpipe.storage.transactions.store import SqlStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from promptpipe.model.ids import IdSource, WorkerId
    from promptpipe.model.messages import InDoubtRules
    from promptpipe.ports.clock import Clock
    from promptpipe.ports.metrics import Metrics
    from promptpipe.ports.runners import Runners
    from promptpipe.storage.sqlite.readers import Readers
    from promptpipe.storage.sqlite.writer import Connect, Writer


@asynccontextmanager
async def open_sqlite_store(
    path: Path,
    *,
    clock: Clock,
    ids: IdSource,
    worker: WorkerId,
    rules: InDoubtRules,
    runners: Runners,
    make_writer: Callable[[Connect], Writer] = ThreadWriter,
    make_readers: Callable[[Connect], Readers] = ThreadReaders,
    metrics: Metrics = SILENT,
    read_only: bool = False,
) -> AsyncIterator[SqlStore]:
    """Open the database at *path* for as long as the context lasts; see `open_database` for its errors.

    *worker* is the name under which this process leases work; any other's leases are stale. *runners* are woken for
    each kind of work that a commit made due, and take some of it along if they have room. What is *read_only* may be
    another process's too; see `open_to_read`.
    """
    if read_only:
        async with open_to_read(path, clock, ids) as readable:
            yield SqlStore(readable, worker, rules, runners)
        return
    opened = open_database(path, clock, ids, runners.wake, make_writer=make_writer, make_readers=make_readers)
    async with opened as database:
        await database.write(lambda tx: tx.run("delete_instances"))  # the lock proves that they are gone
        yield SqlStore(MeasuredDatabase(database, metrics), worker, rules, runners)
