"""The SQLite file: one process at a time, and a schema with a history."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import stat
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import trio

from promptpipe.model.errors import SchemaError, StoreInUseError, StoreUnavailableError
from promptpipe.storage.migrations import Migration
from promptpipe.storage.sqlite.migrations import known_migrations, migrate
from tests.support.database import SqliteTestDatabase, running

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path


def hold(path: Path, ready: Connection) -> None:
    """Open the database, say so, and stay."""

    async def main() -> None:
        async with running(SqliteTestDatabase(path)):
            ready.send("open")
            await trio.sleep_forever()

    trio.run(main)


async def test_second_process_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    """It learns which process has the file; a killed one leaves nothing behind that would refuse the next."""
    path = tmp_path / "db"
    ours, theirs = multiprocessing.Pipe()
    other = multiprocessing.get_context("spawn").Process(target=hold, args=(path, theirs), daemon=True)
    other.start()
    assert await trio.to_thread.run_sync(ours.poll, 20)
    with pytest.raises(StoreInUseError, match=rf"in use by another PromptPipe process \(pid {other.pid}\)"):
        async with running(SqliteTestDatabase(path)):
            pass
    assert other.pid is not None
    os.kill(other.pid, signal.SIGKILL)
    await trio.to_thread.run_sync(other.join)
    async with running(SqliteTestDatabase(path)) as database:
        await database.store.probe()


async def test_two_names_of_one_file_share_one_lock(tmp_path: Path) -> None:
    """A link is no way around."""
    path, link = tmp_path / "db", tmp_path / "link"
    link.symlink_to(path)
    async with running(SqliteTestDatabase(path)):
        with pytest.raises(StoreInUseError):
            async with running(SqliteTestDatabase(link)):
                pass


async def test_files_are_for_the_owner_alone(tmp_path: Path) -> None:
    """What people said is in there."""
    async with running(SqliteTestDatabase(tmp_path / "db")) as database:
        await database.store.probe()
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("db", "db-wal", "db-shm", "db.lock"), 0o600)


async def test_missing_folder_is_said_plainly(tmp_path: Path) -> None:
    """No traceback, the path and the reason."""
    with pytest.raises(StoreUnavailableError, match=r"cannot open the database .*: No such file or directory"):
        async with running(SqliteTestDatabase(tmp_path / "no" / "db")):
            pass


async def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """Nothing is written to somebody's photograph."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"\xff\xd8\xff" + bytes(5000))
    with pytest.raises(SchemaError, match="is not a database"):
        async with running(SqliteTestDatabase(path)):
            pass
    assert path.stat().st_size == 5003


async def test_newer_schema_is_refused(tmp_path: Path) -> None:
    """A downgrade does not touch what it does not understand."""
    path = tmp_path / "db"
    async with running(SqliteTestDatabase(path)) as database:
        database.change("INSERT INTO schema_migrations VALUES (9999, '9999_future.sql', 'x', 0)")
    with pytest.raises(SchemaError, match=r"9999_future\.sql: it belongs to a newer PromptPipe"):
        async with running(SqliteTestDatabase(path)):
            pass


async def test_changed_migration_is_refused(tmp_path: Path) -> None:
    """History is not rewritten."""
    path = tmp_path / "db"
    async with running(SqliteTestDatabase(path)) as database:
        database.change("UPDATE schema_migrations SET checksum = 'other'")
    with pytest.raises(SchemaError, match="was changed after it had been applied"):
        async with running(SqliteTestDatabase(path)):
            pass


def test_migrations_are_applied_once(tmp_path: Path) -> None:
    """The second time there is nothing to do."""
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as connection:
        assert migrate(connection, 0) == known_migrations()
        assert migrate(connection, 0) == []


def test_failing_migration_leaves_nothing_behind(tmp_path: Path) -> None:
    """All missing steps are one transaction."""
    broken = Migration(9999, "9999_broken.sql", "CREATE TABLE a (b TEXT);\nCREATE NONSENSE;\n")
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as connection:
        with pytest.raises(sqlite3.OperationalError, match="NONSENSE"):
            migrate(connection, 0, [*known_migrations(), broken])
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
