"""An open SQLite database: its lock, its connections, and transactions on them."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from promptpipe.model.errors import SchemaError, StoreInUseError, StoreUnavailableError
from promptpipe.storage.migrations import require_none
from promptpipe.storage.sqlite.migrations import find_missing, known_migrations, migrate
from promptpipe.storage.sqlite.readers import ThreadReaders
from promptpipe.storage.sqlite.transaction import SqliteTransaction, run_at_once
from promptpipe.storage.sqlite.values import micros
from promptpipe.storage.sqlite.writer import NoWriter, ThreadWriter, as_unavailable
from promptpipe.storage.transactions.transaction import Last

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from pathlib import Path

    from promptpipe.model.ids import IdSource
    from promptpipe.model.leases import Work
    from promptpipe.ports.clock import Clock
    from promptpipe.storage.migrations import Migration
    from promptpipe.storage.sqlite.readers import Readers
    from promptpipe.storage.sqlite.writer import Connect, Writer
    from promptpipe.storage.transactions.transaction import Transaction

T = TypeVar("T")

WAL_PAGES = 4_000
"""Pages (of 4 KiB) in the write-ahead log from which on a commit carries them over into the file.

The same few pages are written again and again: the more are waited for, the fewer are carried over.
"""

MINIMUM_SQLITE = (3, 38, 0)
"""The first with JSON functions built in always; STRICT tables and RETURNING are older."""


class SqliteDatabase:
    """`transactions.Database`: writes on one thread in groups, reads on connections of their own."""

    def __init__(
        self, writer: Writer, readers: Readers, clock: Clock, ids: IdSource, on_commit: Callable[[Work], object]
    ) -> None:
        self._writer = writer
        self._readers = readers
        self._clock = clock
        self._ids = ids
        self._on_commit = on_commit

    async def write(self, function: Callable[[Transaction], Coroutine[Any, Any, T | Last[T]]]) -> T:
        """Run *function* in one durable transaction; see `Writer.run`. Then wake whom it woke."""
        result, woken = await self._writer.run(partial(self._run, function))
        for work in woken:
            self._on_commit(work)
        return result

    async def read(self, function: Callable[[Transaction], Coroutine[Any, Any, T]]) -> T:
        """Run *function* on a consistent snapshot, beside writes."""
        result, _ = await self._readers.run(partial(self._run, function))
        return result

    async def close(self) -> None:
        """Finish the writes handed in, and close all connections."""
        await self._readers.close()
        await self._writer.close()

    def _run(
        self, function: Callable[[Transaction], Coroutine[Any, Any, T | Last[T]]], connection: sqlite3.Connection
    ) -> tuple[T, set[Work]]:
        transaction = SqliteTransaction(connection, micros(self._clock.now()), self._ids)
        result = run_at_once(function(transaction))
        return (run_at_once(result.result()) if isinstance(result, Last) else result), transaction.woken


def connect(path: Path, *, factory: type[sqlite3.Connection] = sqlite3.Connection) -> sqlite3.Connection:
    """Open *path* for durable writes: a commit has reached the disk when it returns."""
    connection = sqlite3.connect(
        path,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
        factory=factory,
        timeout=5.0,
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


async def migrate_sqlite(path: Path, clock: Clock) -> list[Migration]:
    """Bring the schema of the database at *path* up to date and return what was applied; raise as `open_database`."""
    return await trio.to_thread.run_sync(_migrate_alone, path, micros(clock.now()))


async def check_sqlite_schema(path: Path) -> list[Migration]:
    """Return the migrations that the database at *path* lacks, all if there is none; the file is only read.

    Raise `SchemaError` when it is newer than this program or no database of ours.
    """
    return await trio.to_thread.run_sync(_check, path)


def _migrate_alone(path: Path, now: int) -> list[Migration]:
    lock = _lock(path)
    try:
        with _ours(path), closing(connect(path)) as connection:
            return migrate(connection, now)
    finally:
        os.close(lock)


def _check(path: Path) -> list[Migration]:
    if not path.exists():
        return known_migrations()
    with _ours(path), closing(_connect_to_read(path)) as connection:
        return find_missing(connection)


@contextmanager
def _ours(path: Path) -> Iterator[None]:
    """Raise SQLite's errors as ours."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise as_unavailable(error) or SchemaError(f"{path} is not a database of ours: {error}") from error


@asynccontextmanager
async def open_database(
    path: Path,
    clock: Clock,
    ids: IdSource,
    on_commit: Callable[[Work], object],
    *,
    make_writer: Callable[[Connect], Writer] = ThreadWriter,
    make_readers: Callable[[Connect], Readers] = ThreadReaders,
) -> AsyncIterator[SqliteDatabase]:
    """Open the database at *path* as its only writing process, made and migrated as needed.

    Raise `StoreInUseError` when another process has it open, `SchemaError` when it is newer than this program
    or no database of ours, and `StoreUnavailableError` when it cannot be opened.
    """
    if sqlite3.sqlite_version_info < MINIMUM_SQLITE:
        wanted = ".".join(map(str, MINIMUM_SQLITE))
        raise StoreUnavailableError(f"SQLite {wanted} or newer is needed; this is {sqlite3.sqlite_version}")
    lock = _lock(path)
    try:
        with _ours(path), closing(connect(path)) as connection:
            migrate(connection, micros(clock.now()))
        open_connection = partial(connect, path)
        database = SqliteDatabase(make_writer(open_connection), make_readers(open_connection), clock, ids, on_commit)
        try:
            yield database
        finally:
            with trio.CancelScope(shield=True):
                await database.close()
    finally:
        os.close(lock)


@asynccontextmanager
async def open_to_read(path: Path, clock: Clock, ids: IdSource) -> AsyncIterator[SqliteDatabase]:
    """Open the database at *path* beside whoever has it, for reading alone; writes raise `PreconditionError`.

    Raise as `open_database`, and `SchemaError` when it is older than this program.
    """
    require_none(await check_sqlite_schema(path))
    database = SqliteDatabase(NoWriter(), ThreadReaders(partial(_connect_to_read, path)), clock, ids, lambda _: None)
    try:
        yield database
    finally:
        with trio.CancelScope(shield=True):
            await database.close()


def _connect_to_read(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False, timeout=5.0
    )


def _lock(path: Path) -> int:
    """Take the lock beside *path* and return its descriptor; the kernel frees it when the process ends."""
    real = path.resolve()
    # People's conversations are in here: nobody else's to read.
    flags, mode = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    try:
        descriptor = os.open(real.with_name(f"{real.name}.lock"), flags, mode)
    except OSError as error:
        raise StoreUnavailableError(f"cannot open the database {path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        os.close(os.open(real, flags, mode))
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise StoreInUseError(
            f"the database {path} is in use by another PromptPipe process" + (f" (pid {holder})" if holder else "")
        ) from None
    except OSError as error:
        os.close(descriptor)
        raise StoreUnavailableError(f"cannot open the database {path}: {error.strerror}") from error
    return descriptor
