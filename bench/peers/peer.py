"""What every peer does, and the process in which one works."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from bench.worker import Report, open_process

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from multiprocessing.connection import Connection as Pipe

    from bench.worker import Worker


class Peer(Protocol):
    """A job queue; its fields are how it is set."""

    name: str
    packages: tuple[str, ...]
    """Whose versions are to be told."""

    number: int
    """How many jobs take it a few seconds."""

    unfinished: str
    """A query for how many jobs are yet to be done."""

    def set_up(self, url: str) -> None:
        """Make its schema in an empty database."""
        ...

    def enqueue(self, url: str, number: int) -> None:
        """Enqueue jobs that do nothing, in its own quickest way."""
        ...

    def enqueuing(self, url: str) -> AbstractContextManager[Callable[[str], Any]]:
        """Give a function that enqueues one job with a payload, durably when it returns."""
        ...

    def work(self, url: str, handled: Handled, go: Callable[[], None], stop: threading.Event) -> None:
        """Get ready, wait in *go*, and work off jobs until *stop* is set; each calls *handled* with its payload."""
        ...


class Handled:
    """Counts jobs and notes how late they started; says when all that are wanted have come. Any thread may call it."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()
        self._wanted = 0
        self._report = Report(0, 0.0)
        self._before = 0.0
        self._stop = threading.Event()

    def __call__(self, payload: str | bytes | None = None) -> None:
        now = time.time_ns()
        with self._lock:
            if payload:
                self._report.latencies.append((now - int(payload)) / 1e9)
            self._report.handled += 1
            done = self._report.handled == self._wanted
        if done:
            self._pipe.send(("handled", now))

    def work(self, peer: Peer, url: str) -> None:
        """Let *peer* work from the word on until the word."""
        peer.work(url, self, self._go, self._stop)
        self._pipe.send(self._report)

    def _go(self) -> None:
        self._pipe.send("ready")
        self._wanted = self._pipe.recv()
        self._before = time.process_time()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        self._pipe.recv()
        self._report.cpu_seconds = time.process_time() - self._before
        self._stop.set()


def _main(pipe: Pipe, peer: Peer, url: str) -> None:
    Handled(pipe).work(peer, url)


def open_peer(peer: Peer, url: str) -> AbstractContextManager[Worker]:
    """Give a process in which *peer* waits for the word."""
    return open_process(_main, peer, url)
