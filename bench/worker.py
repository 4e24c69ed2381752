"""A process of the product that runs jobs of the kind `bench`, as it would in production but for servers and flows."""

from __future__ import annotations

import multiprocessing
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from promptpipe import app
from promptpipe.app.parts import make_instance_watch, make_recovery, make_runners, make_worker
from promptpipe.config import Settings
from promptpipe.ports.jobs import JobKind
from promptpipe.services.readiness import Readiness

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from multiprocessing.connection import Connection as Pipe

    from promptpipe.app import Components
    from promptpipe.model.jobs import Job

T = TypeVar("T")

KIND = "bench"
CONTEXT = multiprocessing.get_context("forkserver")
"""Each process is forked from one that has imported everything but has done nothing."""

CONTEXT.set_forkserver_preload(["bench.worker", "promptpipe.storage.postgres"])
ANSWER_SECONDS = 300.0


@dataclass
class Report:
    """What a worker has done."""

    handled: int
    cpu_seconds: float
    latencies: list[float] = field(default_factory=list)
    """Seconds from just before a job was enqueued to its handler's first line, for jobs that say when that was."""


class Handler:
    """Does nothing but count, and tell when all that is wanted has come."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self.wanted = 0
        self.report = Report(0, 0.0)

    async def __call__(self, job: Job, payload: Mapping[str, object]) -> None:
        del job
        now = time.time_ns()
        if (sent := payload.get("sent")) is not None:
            self.report.latencies.append((now - int(str(sent))) / 1e9)
        self.report.handled += 1
        if self.report.handled == self.wanted:
            self._pipe.send(("handled", now))


def settings_for(url: str, **more: Any) -> Settings:
    """Return the product's default settings for a database."""
    return Settings(database_url=url, **more)


async def run_jobs(components: Components, pipe: Pipe, handler: Handler) -> None:
    """Run jobs from the word on until the word."""
    readiness = Readiness()
    worker = make_worker(components, readiness)
    watch = make_instance_watch(components, worker, make_recovery(components), readiness)
    runner = next(part for part in make_runners(components, worker) if part.name == "job runner")
    async with trio.open_nursery() as nursery:
        for task in components.store.background:
            nursery.start_soon(task)
        await nursery.start(watch.run)
        await nursery.start(worker.keeper.run)
        pipe.send("ready")
        handler.wanted = await receive(pipe)
        before = time.process_time()
        await nursery.start(runner.run)
        await receive(pipe)
        handler.report.cpu_seconds = time.process_time() - before
        pipe.send(handler.report)
        nursery.cancel_scope.cancel()
    await components.store.leases.give_back(components.worker)


async def receive(pipe: Pipe) -> Any:
    """Return what the other side sends."""
    await trio.lowlevel.wait_readable(pipe.fileno())
    return pipe.recv()


async def _work(url: str, pipe: Pipe, settings: dict[str, Any]) -> None:
    handler = Handler(pipe)
    async with app.open_components(settings_for(url, **settings)) as components:
        await run_jobs(replace(components, job_kinds={KIND: JobKind(name=KIND, run=handler)}), pipe, handler)


def _main(pipe: Pipe, url: str, settings: dict[str, Any]) -> None:
    app.settle_memory()
    trio.run(partial(_work, url, pipe, settings))


class Worker:
    """A worker process, from the outside."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def go(self, wanted: int) -> None:
        """Let it start."""
        self._pipe.send(wanted)

    def wait_handled(self) -> None:
        """Return when the wanted number of jobs has been handled."""
        self._expect("handled")

    def stop(self) -> Report:
        """End it, and return what it did."""
        self._pipe.send("stop")
        report: Report = self._receive()
        return report

    def _receive(self) -> Any:
        if not self._pipe.poll(ANSWER_SECONDS):
            raise TimeoutError("the worker says nothing")
        return self._pipe.recv()

    def _expect(self, what: str) -> None:
        said = self._receive()
        if what not in (said, said[0]):
            raise RuntimeError(f"the worker says {said!r}, not {what!r}")

    def wait_ready(self) -> None:
        self._expect("ready")


@contextmanager
def open_process(target: Callable[..., None], *arguments: Any) -> Iterator[Worker]:
    """Give a worker that waits for the word: *target* gets its end of a pipe, and *arguments*."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=target, args=(theirs, *arguments))
    process.start()
    theirs.close()
    try:
        worker = Worker(ours)
        worker.wait_ready()
        yield worker
    finally:
        ours.close()
        process.join(10)
        process.kill()


def open_worker(url: str, **settings: Any) -> AbstractContextManager[Worker]:
    """Give a worker of the product's that waits for the word."""
    return open_process(_main, url, settings)


def in_process(measure: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Return what *measure* returns in a process of its own."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_calculate, args=(theirs, measure, *arguments))
    process.start()
    theirs.close()
    try:
        result: T = ours.recv()
        return result
    finally:
        process.join(10)
        process.kill()


def _calculate(pipe: Pipe, measure: Callable[..., Awaitable[T]], *arguments: Any) -> None:
    pipe.send(trio.run(measure, *arguments))
