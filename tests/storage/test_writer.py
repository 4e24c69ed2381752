"""The SQLite writer: one thread, durable commits in groups, and cancellation that leaves no doubt."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from promptpipe.model.errors import StoreUnavailableError
from promptpipe.storage.sqlite.database import connect
from promptpipe.storage.sqlite.writer import ThreadWriter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class CountingConnection(sqlite3.Connection):
    """Counts commits, over all connections of a test."""

    commits = 0

    def execute(self, sql: str, *rest: object) -> sqlite3.Cursor:
        if sql == "COMMIT":
            CountingConnection.commits += 1
        return super().execute(sql, *rest)  # type: ignore[arg-type]


@asynccontextmanager
async def open_writer(path: Path) -> AsyncIterator[ThreadWriter]:
    """Give a writer on a table `t (n)`."""
    with sqlite3.connect(path) as setup:
        setup.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY)")
    setup.close()
    CountingConnection.commits = 0
    writer = ThreadWriter(partial(connect, path, factory=CountingConnection))
    yield writer
    await writer.close()


def insert(n: int, connection: sqlite3.Connection) -> int:
    connection.execute("INSERT INTO t (n) VALUES (?)", (n,))
    return n


def count(connection: sqlite3.Connection) -> int:
    value: int = connection.execute("SELECT count(*) FROM t").fetchone()[0]
    return value


class Blocker:
    """A transaction that holds the writer until it is let go."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.go = threading.Event()

    def __call__(self, connection: sqlite3.Connection) -> str:
        self.began.set()
        assert self.go.wait(10)
        insert(1000, connection)
        return "done"


async def began(blocker: Blocker) -> None:
    await trio.to_thread.run_sync(blocker.began.wait, 10)


async def test_what_queues_up_shares_one_commit(tmp_path: Path) -> None:
    """Fifty transactions that wait for the thread cost one fsync, and each gets its own result."""
    async with open_writer(tmp_path / "db") as writer:
        results: list[int] = []

        async def put(n: int) -> None:
            results.append(await writer.run(partial(insert, n)))

        blocker = Blocker()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run, blocker)
            await began(blocker)
            for n in range(50):
                nursery.start_soon(put, n)
            await trio.testing.wait_all_tasks_blocked()
            blocker.go.set()
        assert sorted(results) == list(range(50))
        assert CountingConnection.commits == 2


async def test_failing_transaction_takes_no_neighbour_with_it(tmp_path: Path) -> None:
    """Each has a savepoint: its own error is raised to it, and only its own changes are undone."""
    async with open_writer(tmp_path / "db") as writer:
        errors: list[Exception] = []

        def fail_after_a_change(connection: sqlite3.Connection) -> None:
            insert(7, connection)
            raise ValueError("mine")

        async def expect_error() -> None:
            try:
                await writer.run(fail_after_a_change)
            except ValueError as error:
                errors.append(error)

        blocker = Blocker()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run, blocker)
            await began(blocker)
            nursery.start_soon(writer.run, partial(insert, 1))
            nursery.start_soon(expect_error)
            nursery.start_soon(writer.run, partial(insert, 2))
            await trio.testing.wait_all_tasks_blocked()
            blocker.go.set()
        assert [str(error) for error in errors] == ["mine"]
        assert await writer.run(count) == 3


async def test_canceled_before_it_began_it_never_runs(tmp_path: Path) -> None:
    """A transaction that still waits is withdrawn."""
    async with open_writer(tmp_path / "db") as writer:
        blocker = Blocker()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run, blocker)
            await began(blocker)
            with trio.CancelScope() as scope:
                scope.cancel()
                await writer.run(partial(insert, 1))
            with trio.move_on_after(0.01):
                await writer.run(partial(insert, 2))
            blocker.go.set()
        assert await writer.run(count) == 1


async def test_canceled_once_begun_it_is_waited_for(tmp_path: Path) -> None:
    """The caller gets the result of what was committed, and is canceled after."""
    async with open_writer(tmp_path / "db") as writer:
        blocker = Blocker()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel_midway() -> None:
                    await began(blocker)
                    scope.cancel()
                    blocker.go.set()

                nursery.start_soon(cancel_midway)
                result = await writer.run(blocker)
                await trio.lowlevel.checkpoint()
        assert result == "done"
        assert scope.cancelled_caught
        assert await writer.run(count) == 1


async def test_full_disk_is_unavailability_and_passes(tmp_path: Path) -> None:
    """What the database cannot take now fails for all in the commit, and later succeeds."""
    async with open_writer(tmp_path / "db") as writer:

        def fill(connection: sqlite3.Connection) -> None:
            connection.execute("CREATE TABLE IF NOT EXISTS big (data BLOB)")
            connection.execute("INSERT INTO big VALUES (zeroblob(1000000))")

        def limit(pages: int, connection: sqlite3.Connection) -> None:
            connection.execute(f"PRAGMA max_page_count = {pages}")

        await writer.run(partial(limit, 10))
        with pytest.raises(StoreUnavailableError, match="full"):
            await writer.run(fill)
        assert await writer.run(partial(insert, 1)) == 1
        await writer.run(partial(limit, 1_000_000))
        await writer.run(fill)


async def test_database_locked_by_somebody_else_is_unavailability(tmp_path: Path) -> None:
    """An operator's shell that holds a write transaction makes us wait, not die."""
    path = tmp_path / "db"
    async with open_writer(path) as writer:
        await writer.run(lambda connection: connection.execute("PRAGMA busy_timeout = 10").close())
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="locked"):
            await writer.run(partial(insert, 1))
        other.execute("ROLLBACK")
        other.close()
        assert await writer.run(partial(insert, 1)) == 1


async def test_database_that_cannot_be_opened_fails_those_who_wait(tmp_path: Path) -> None:
    """Nobody hangs on a thread that has ended."""
    writer = ThreadWriter(partial(connect, tmp_path / "no" / "such" / "folder"))
    with pytest.raises(StoreUnavailableError):
        await writer.run(count)
    with pytest.raises(StoreUnavailableError):
        await writer.run(count)


async def test_closing_finishes_what_was_handed_in(tmp_path: Path) -> None:
    """A close lets no commit go, and refuses what comes after it."""
    path = tmp_path / "db"
    async with open_writer(path) as writer:
        blocker = Blocker()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run, blocker)
            await began(blocker)
            nursery.start_soon(writer.run, partial(insert, 1))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(writer.close)
            await trio.testing.wait_all_tasks_blocked()
            blocker.go.set()
        with pytest.raises(StoreUnavailableError):
            await writer.run(count)
    with sqlite3.connect(path) as check:
        assert count(check) == 2
    check.close()
