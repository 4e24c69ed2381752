"""Huey on SQLite: with commits that wait for the disk, and without results, which nobody would read."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from huey import SqliteHuey

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from bench.peers.peer import Handled


@dataclass(frozen=True)
class Huey:
    """`bench.peers.peer.Peer` of Huey."""

    workers: int
    fsync: bool = True
    initial_delay: float = 0.01
    max_delay: float = 0.25

    name: ClassVar[str] = "Huey"
    packages: ClassVar[tuple[str, ...]] = ("huey",)
    number: ClassVar[int] = 1_000
    unfinished: ClassVar[str] = "SELECT count(*) FROM task"

    def _app(self, url: str, handled: Callable[[str | None], None] | None = None) -> tuple[SqliteHuey, Any]:
        huey = SqliteHuey("q", filename=url.removeprefix("sqlite:///"), fsync=self.fsync, results=False)

        @huey.task(name="noop")
        def noop(payload: str | None = None) -> None:
            if handled is not None:
                handled(payload)

        return huey, noop

    def set_up(self, url: str) -> None:
        self._app(url)

    def enqueue(self, url: str, number: int) -> None:
        _, noop = self._app(url)
        for _ in range(number):
            noop()

    @contextlib.contextmanager
    def enqueuing(self, url: str) -> Iterator[Callable[[str], Any]]:
        _, noop = self._app(url)
        yield noop

    def work(self, url: str, handled: Handled, go: Callable[[], None], stop: threading.Event) -> None:
        huey, _ = self._app(url, handled)
        consumer = huey.create_consumer(
            workers=self.workers,
            worker_type="thread",
            periodic=False,
            initial_delay=self.initial_delay,
            max_delay=self.max_delay,
        )
        go()
        consumer.start()
        stop.wait()
        consumer.stop(graceful=False)
