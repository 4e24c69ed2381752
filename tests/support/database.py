"""A store for a test, with all that a test wants to know and do about it."""

from __future__ import annotations

import random
import sqlite3
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg

from promptpipe.model.ids import IdSource, WorkerId
from promptpipe.model.leases import Claim
from promptpipe.model.messages import InDoubtRules
from promptpipe.storage.postgres import PostgresConfig, open_postgres_store
from promptpipe.storage.sqlite import open_sqlite_store
from tests.support.clock import ManualClock
from tests.support.runners import PlayedRunners
from tests.support.sql import as_psycopg

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence
    from pathlib import Path

    from promptpipe.ports.store import Store

LEASE_SECONDS = 30.0
RULES = InDoubtRules(wait=120.0)

DATABASE_CLOCK: LiteralString = """
CREATE TABLE test_clock (instant timestamptz NOT NULL);
INSERT INTO test_clock VALUES (now());
CREATE OR REPLACE FUNCTION promptpipe_now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT instant FROM test_clock';
"""
"""What makes a database take its time from a row that the test sets."""

EMPTY_EVERYTHING: LiteralString = """
DO $$
DECLARE name text;
BEGIN
    FOR name IN SELECT tablename FROM pg_tables
        WHERE schemaname = 'public' AND tablename NOT IN ('schema_migrations', 'test_clock')
    LOOP
        EXECUTE format('DELETE FROM %I', name);
    END LOOP;
END $$
"""


class Database(ABC):
    """An open store on a clock of its own. `restart` is what a crash and a new process do to it."""

    def __init__(self, rules: InDoubtRules = RULES) -> None:
        self.rules = rules
        self.clock = ManualClock()
        self.new_id = IdSource(self.clock.now, random.Random(7).getrandbits)
        self.runners = PlayedRunners()
        self.worker = WorkerId("worker-0")
        self.store: Store
        self._restarts = 0
        self._stack = AsyncExitStack()

    @abstractmethod
    def opened(self) -> AbstractAsyncContextManager[Store]:
        """Return what opens a store for `self.worker`."""

    @abstractmethod
    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Return what a query (values as `?`) finds, for what the port does not show."""

    @abstractmethod
    def change(self, sql: str, *parameters: object) -> None:
        """Change the database behind the store's back, as an operator with a shell may."""

    @abstractmethod
    def tables(self) -> list[str]:
        """Return the names of all tables."""

    async def open(self) -> None:
        self.store = await self._stack.enter_async_context(self.opened())

    async def close(self) -> None:
        await self._stack.aclose()

    async def dispose(self) -> None:
        """Close it for good."""
        await self.close()

    async def restart(self) -> None:
        """Go on as another worker that knows nothing but what is stored."""
        await self.close()
        self._restarts += 1
        self.worker = WorkerId(f"worker-{self._restarts}")
        await self.open()

    async def repair(self) -> None:
        """Do what recovery does before anything runs."""
        recovery = self.store.recovery
        await recovery.requeue_stale_running_jobs()
        await recovery.release_stale_mailboxes()
        await recovery.requeue_stale_sending_messages()

    def claim(
        self,
        limit: int = 10,
        *,
        worker: str | None = None,
        held: Collection[str] = (),
        suspect: bool = True,
        thorough: bool = True,
        sight: float = 86_400.0,
        queues: Sequence[str] = ("default",),
        depth: int = 1,
    ) -> Claim:
        """Return a request for work, by this worker unless another is named."""
        name = self.worker if worker is None else WorkerId(worker)
        return Claim(
            worker=name,
            limit=limit,
            seconds=LEASE_SECONDS,
            held=held,
            suspect=suspect,
            thorough=thorough,
            sight=sight,
            queues=queues,
            depth=depth,
        )


class SqliteTestDatabase(Database):
    """A file."""

    def __init__(self, path: Path, rules: InDoubtRules = RULES) -> None:
        super().__init__(rules)
        self.path = path

    def opened(self) -> AbstractAsyncContextManager[Store]:
        return open_sqlite_store(
            self.path,
            clock=self.clock,
            ids=self.new_id,
            worker=self.worker,
            rules=self.rules,
            runners=self.runners,
        )

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(sql, parameters).fetchall()

    def tables(self) -> list[str]:
        return [name for (name,) in self.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")]

    def change(self, sql: str, *parameters: object) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(sql, parameters)


class PostgresTestDatabase(Database):
    """A database whose own clock follows the test's."""

    def __init__(self, url: str, rules: InDoubtRules = RULES) -> None:
        super().__init__(rules)
        self.url = url
        self._connection = psycopg.connect(url, autocommit=True)
        self.clock.on_change = self._set_clock
        self._set_clock()

    def opened(self) -> AbstractAsyncContextManager[Store]:
        return open_postgres_store(
            PostgresConfig(url=self.url),
            ids=self.new_id,
            worker=self.worker,
            rules=self.rules,
            runners=self.runners,
        )

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self._connection.execute(as_psycopg(sql), parameters).fetchall()

    def tables(self) -> list[str]:
        return [name for (name,) in self.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]

    def change(self, sql: str, *parameters: object) -> None:
        self._connection.execute(as_psycopg(sql), parameters)

    async def dispose(self) -> None:
        await super().dispose()
        self._connection.close()

    def _set_clock(self) -> None:
        self.change("UPDATE test_clock SET instant = ?", self.clock.now())


@asynccontextmanager
async def running(database: Database) -> AsyncIterator[Database]:
    """Open *database*, and close it in the end."""
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.dispose)
        await database.open()
        yield database
