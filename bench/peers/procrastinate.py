"""Procrastinate: one worker that runs several jobs at a time over a pool of psycopg's connections."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import procrastinate

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from bench.peers.peer import Handled

CHUNK = 1000


@dataclass(frozen=True)
class Procrastinate:
    """`bench.peers.peer.Peer` of Procrastinate."""

    concurrency: int
    pool: int = 10
    delete_jobs: str = "always"

    name: ClassVar[str] = "Procrastinate"
    packages: ClassVar[tuple[str, ...]] = ("procrastinate",)
    number: ClassVar[int] = 600
    unfinished: ClassVar[str] = "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"

    def _app(self, url: str, handled: Callable[[str | None], None] | None = None) -> tuple[procrastinate.App, Any]:
        app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url, min_size=2, max_size=self.pool))

        @app.task(name="noop", queue="q")
        async def noop(payload: str | None = None) -> None:
            if handled is not None:
                handled(payload)

        return app, noop

    def set_up(self, url: str) -> None:
        async def apply() -> None:
            app, _ = self._app(url)
            async with app.open_async():
                await app.schema_manager.apply_schema_async()

        asyncio.run(apply())

    def enqueue(self, url: str, number: int) -> None:
        async def enqueue() -> None:
            app, noop = self._app(url)
            async with app.open_async():
                for first in range(0, number, CHUNK):
                    await noop.batch_defer_async(*[{} for _ in range(min(CHUNK, number - first))])

        asyncio.run(enqueue())

    @contextlib.contextmanager
    def enqueuing(self, url: str) -> Iterator[Callable[[str], Any]]:
        app, noop = self._app(url)
        with asyncio.Runner() as runner:
            runner.run(app.open_async().__aenter__())
            yield lambda payload: runner.run(noop.defer_async(payload=payload))
            runner.run(app.close_async())

    def work(self, url: str, handled: Handled, go: Callable[[], None], stop: threading.Event) -> None:
        async def work() -> None:
            app, _ = self._app(url, handled)
            async with app.open_async():
                go()
                worker = asyncio.create_task(
                    app.run_worker_async(
                        queues=["q"],
                        concurrency=self.concurrency,
                        delete_jobs=self.delete_jobs,
                        install_signal_handlers=False,
                    )
                )
                await asyncio.to_thread(stop.wait)
                worker.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await worker

        asyncio.run(work())
