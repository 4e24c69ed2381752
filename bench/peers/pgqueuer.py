"""PgQueuer: as its own benchmark has it, several queue managers with a connection each in one process, and uvloop."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import asyncpg
import uvloop
from pgqueuer import PgQueuer as Manager
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from bench.peers.peer import Handled

CHUNK = 5000


@dataclass(frozen=True)
class PgQueuer:
    """`bench.peers.peer.Peer` of PgQueuer."""

    consumers: int
    batch_size: int

    name: ClassVar[str] = "PgQueuer"
    packages: ClassVar[tuple[str, ...]] = ("pgqueuer", "asyncpg", "uvloop")
    number: ClassVar[int] = 20_000
    unfinished: ClassVar[str] = "SELECT count(*) FROM pgqueuer WHERE status IN ('queued', 'picked')"

    def set_up(self, url: str) -> None:
        async def install() -> None:
            async with opened(url) as queries:
                await queries.install()

        uvloop.run(install())

    def enqueue(self, url: str, number: int) -> None:
        async def enqueue() -> None:
            async with opened(url) as queries:
                for first in range(0, number, CHUNK):
                    chunk = min(CHUNK, number - first)
                    await queries.enqueue(["noop"] * chunk, [None] * chunk, [0] * chunk)

        uvloop.run(enqueue())

    @contextlib.contextmanager
    def enqueuing(self, url: str) -> Iterator[Callable[[str], Any]]:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            connection = runner.run(asyncpg.connect(url))
            queries = Queries(AsyncpgDriver(connection))
            yield lambda payload: runner.run(queries.enqueue("noop", payload.encode(), 0))
            runner.run(connection.close())

    def work(self, url: str, handled: Handled, go: Callable[[], None], stop: threading.Event) -> None:
        uvloop.run(self._work(url, handled, go, stop))

    async def _work(self, url: str, handled: Handled, go: Callable[[], None], stop: threading.Event) -> None:
        async with contextlib.AsyncExitStack() as stack:
            managers = []
            for _ in range(self.consumers):
                queries = await stack.enter_async_context(opened(url))
                manager = Manager(queries.driver, queries=queries)

                @manager.entrypoint("noop")
                async def noop(job: Any) -> None:
                    handled(job.payload)

                managers.append(manager)
            go()
            async with asyncio.TaskGroup() as group:
                for manager in managers:
                    group.create_task(manager.run(batch_size=self.batch_size))
                await asyncio.to_thread(stop.wait)
                for manager in managers:
                    manager.shutdown.set()


@contextlib.asynccontextmanager
async def opened(url: str) -> Any:
    """Give what asks the database on a connection of its own."""
    connection = await asyncpg.connect(url)
    try:
        yield Queries(AsyncpgDriver(connection))
    finally:
        await connection.close()
