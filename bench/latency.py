"""How soon a job starts after it was enqueued: at rest, at low load, and at half of what a process can drain.

On PostgreSQL another process enqueues; on SQLite there is only one, so it enqueues itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from bench import jobs
from bench.figures import Figure, percentiles
from bench.suite import BACK_ENDS
from bench.worker import KIND, Handler, open_process, open_worker, run_jobs, settings_for
from promptpipe import app
from promptpipe.ports.jobs import JobKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection as Pipe

    from bench.suite import Suite
    from promptpipe.app import Components

REST_SECONDS = 1.0
"""For so long there is nothing before the first job."""

TICK = 0.02
LOADS = (0.01, 0.5)
LOADED_TICKS = 300


@dataclass(frozen=True)
class Pace:
    """At each of *ticks*, *TICK* seconds apart, so many jobs are enqueued in one call."""

    ticks: int
    jobs: int = 1

    @property
    def number(self) -> int:
        return self.ticks * self.jobs


def figures(suite: Suite) -> Iterator[Figure]:
    """Yield how late jobs start."""
    for back_end in BACK_ENDS:
        at_most = (4.0, 10.0) if back_end == "postgres" else (None, None)
        late = at_rest(suite.databases.new(back_end), suite.number(500))
        yield from percentiles(late, what="enqueue to start, at rest", group="latency", of=back_end, at_most=at_most)
        url, number = suite.databases.new(back_end), suite.number(jobs.NUMBER)
        jobs.enqueue(url, number)
        drained, _ = jobs.drain(url, number)
        for load in LOADS:
            each = max(1, round(drained * load * TICK))
            late = paced(suite.databases.new(back_end), Pace(suite.number(LOADED_TICKS), each))
            yield from percentiles(
                late,
                what=f"enqueue to start, at {load:.0%} of what is drained",
                group="latency",
                of=back_end,
                note=f"{each} jobs every {1000 * TICK:.0f} ms",
            )


def at_rest(url: str, number: int) -> list[float]:
    """Return how many seconds after it was enqueued each of *number* jobs started, one at a time."""
    return paced(url, Pace(number))


def paced(url: str, pace: Pace) -> list[float]:
    """Return how many seconds after it was enqueued each job started."""
    if url.startswith("sqlite"):
        with open_process(_alone, url, pace) as worker:
            worker.go(pace.number)
            worker.wait_handled()
            return worker.stop().latencies
    with open_worker(url, job_concurrency=jobs.SLOTS) as worker:
        worker.go(pace.number)
        trio.run(_enqueue, url, pace)
        worker.wait_handled()
        return worker.stop().latencies


async def _enqueue(url: str, pace: Pace) -> None:
    async with app.open_components(settings_for(url)) as components, trio.open_nursery() as nursery:
        for task in components.store.background:
            nursery.start_soon(task)
        await keep(pace, components)
        nursery.cancel_scope.cancel()


async def keep(pace: Pace, components: Components) -> None:
    """Enqueue at the times of *pace*, whatever becomes of what was enqueued before."""
    await trio.sleep(REST_SECONDS)
    begun = trio.current_time()
    for tick in range(pace.ticks):
        await trio.sleep_until(begun + tick * TICK)
        new = jobs.new_jobs(components, pace.jobs, payload={"sent": str(time.time_ns())})
        if pace.jobs == 1:
            await components.store.jobs.enqueue(new[0])
        else:
            await components.store.jobs.enqueue_many(new)


def _alone(pipe: Pipe, url: str, pace: Pace) -> None:
    app.settle_memory()
    trio.run(_enqueue_and_work, pipe, url, pace)


async def _enqueue_and_work(pipe: Pipe, url: str, pace: Pace) -> None:
    handler = Handler(pipe)
    async with app.open_components(settings_for(url, job_concurrency=jobs.SLOTS)) as opened:
        components = replace(opened, job_kinds={KIND: JobKind(name=KIND, run=handler)})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep, pace, components)
            await run_jobs(components, pipe, handler)
