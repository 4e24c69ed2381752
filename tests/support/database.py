"""A store for a test, with all that a test wants to know and do about it."""

from __future__ import annotations

import random
import sqlite3
from contextlib import AsyncExitStack, asynccontextmanager, closing
from typing import TYPE_CHECKING

from promptpipe.model.ids import IdSource, WorkerId
from promptpipe.model.leases import Claim, Work
from promptpipe.model.messages import InDoubtRules
from promptpipe.storage.sqlite import open_sqlite_store
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection
    from pathlib import Path

    from promptpipe.ports.store import Store

LEASE_SECONDS = 30.0
RULES = InDoubtRules(wait=120.0)


class Database:
    """An open store on a clock of its own. `restart` is what a crash and a new process do to it."""

    def __init__(self, path: Path, rules: InDoubtRules) -> None:
        self.path = path
        self.rules = rules
        self.clock = ManualClock()
        self.new_id = IdSource(self.clock.now, random.Random(7).getrandbits)
        self.woken: list[Work] = []
        self.worker = WorkerId("worker-0")
        self.store: Store
        self._restarts = 0
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        self.store = await self._stack.enter_async_context(
            open_sqlite_store(
                self.path,
                clock=self.clock,
                ids=self.new_id,
                worker=self.worker,
                rules=self.rules,
                on_commit=self.woken.append,
            )
        )

    async def close(self) -> None:
        await self._stack.aclose()

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
    ) -> Claim:
        """Return a request for work, by this worker unless another is named."""
        name = self.worker if worker is None else WorkerId(worker)
        return Claim(worker=name, limit=limit, seconds=LEASE_SECONDS, held=held, suspect=suspect)

    def rows(self, sql: str, *parameters: object) -> list[tuple[object, ...]]:
        """Return what a query finds, for what the port does not show."""
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(sql, parameters).fetchall()

    def change(self, sql: str, *parameters: object) -> None:
        """Change the database behind the store's back, as an operator with a shell may."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(sql, parameters)


@asynccontextmanager
async def open_database(path: Path, rules: InDoubtRules = RULES) -> AsyncIterator[Database]:
    """Give an open database at *path*."""
    async with AsyncExitStack() as stack:
        database = Database(path, rules)
        stack.push_async_callback(database.close)
        await database.open()
        yield database
