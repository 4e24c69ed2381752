"""Jobs: how fast they are enqueued and drained, and what each costs."""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import trio

from bench.databases import count
from bench.figures import Figure, figure
from bench.suite import BACK_ENDS
from bench.worker import KIND, open_worker, settings_for
from promptpipe import app
from promptpipe.model.ids import JobId
from promptpipe.model.jobs import NewJob

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bench.suite import Suite
    from promptpipe.app import Components

CHUNK = 1000
SLOTS = 500
NUMBER = 40_000
MONTH = timedelta(days=30)


async def _enqueue(url: str, number: int, after: timedelta) -> float:
    async with app.open_components(settings_for(url)) as components:
        begun = time.perf_counter()
        for first in range(0, number, CHUNK):
            await components.store.jobs.enqueue_many(new_jobs(components, min(CHUNK, number - first), after))
        return time.perf_counter() - begun


def new_jobs(
    components: Components, number: int, after: timedelta = timedelta(0), payload: Mapping[str, object] | None = None
) -> list[NewJob]:
    """Return jobs that do nothing."""
    at = components.clock.now() + after
    return [NewJob(id=JobId(components.new_id()), kind=KIND, run_at=at, payload=payload or {}) for _ in range(number)]


def enqueue(url: str, number: int, after: timedelta = timedelta(0)) -> float:
    """Enqueue jobs in the product's own way and return the jobs per second."""
    return number / trio.run(_enqueue, url, number, after)


def drain(url: str, number: int) -> tuple[float, float]:
    """Let one process work off the jobs there are; return jobs per second until none is left, and its CPU µs each."""
    with open_worker(url, job_concurrency=SLOTS) as worker:
        begun = time.perf_counter()
        worker.go(number)
        worker.wait_handled()
        while count(url, "SELECT count(*) FROM jobs WHERE status = 'running' OR attempt > 0"):
            time.sleep(0.01)  # noqa: TID251
        took = time.perf_counter() - begun
        report = worker.stop()
    return number / took, report.cpu_seconds / number * 1e6


def drain_together(url: str, number: int, instances: int) -> float:
    """Let several processes work off the jobs there are; return jobs per second until none is left."""
    with ExitStack() as stack:
        workers = [stack.enter_context(open_worker(url, job_concurrency=SLOTS)) for _ in range(instances)]
        begun = time.perf_counter()
        for worker in workers:
            worker.go(number)
        while count(url, "SELECT count(*) FROM jobs"):
            time.sleep(0.01)  # noqa: TID251
        took = time.perf_counter() - begun
        for worker in workers:
            worker.stop()
    return number / took


def figures(suite: Suite) -> Iterator[Figure]:
    """Yield how fast jobs are enqueued and drained, and what that costs the service and the server."""
    for back_end in BACK_ENDS:
        yield from _drained(suite, back_end)


def _drained(suite: Suite, back_end: str) -> Iterator[Figure]:
    number = suite.number(NUMBER)
    enqueued, drained, cpu, server_cpu, wal = [], [], [], [], []
    for _ in suite.rounds:
        url = suite.databases.new(back_end)
        enqueued.append(enqueue(url, number))
        before = suite.databases.wal(), suite.databases.server_cpu()
        per_second, micros = drain(url, number)
        drained.append(per_second)
        cpu.append(micros)
        after = suite.databases.wal(), suite.databases.server_cpu()
        wal.append((after[0] - before[0]) / number)
        if before[1] is not None and after[1] is not None:
            server_cpu.append((after[1] - before[1]) / number * 1e6)
    new = partial(figure, group="jobs", of=back_end)
    yield new(enqueued, what="jobs enqueued in thousands", unit="/s")
    yield new(drained, what="no-op jobs drained", unit="/s", at_least=20_000)
    yield new(cpu, what="the service's CPU for each job drained", unit="µs")
    if back_end == "postgres":
        yield new(wal, what="WAL for each job drained", unit="bytes")
        if server_cpu:
            yield new(server_cpu, what="the server's CPU for each job drained", unit="µs")
