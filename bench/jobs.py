"""Jobs: how fast they are enqueued and drained, and how soon they start."""

from __future__ import annotations

import sqlite3
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import psycopg
import trio

from bench.worker import KIND, open_worker, settings_for
from promptpipe import app
from promptpipe.model.ids import JobId
from promptpipe.model.jobs import NewJob

if TYPE_CHECKING:
    from datetime import timedelta

    from promptpipe.app import Components

CHUNK = 1000


def count(url: str, sql: str) -> int:
    """Return the number that a query finds."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file:
            return int(file.execute(sql).fetchone()[0])
    with psycopg.connect(url, autocommit=True) as connection:
        return int(connection.execute(sql).fetchone()[0])  # type: ignore[arg-type, index]


async def _enqueue(url: str, number: int, after: timedelta | None) -> float:
    async with app.open_components(settings_for(url)) as components:
        begun = time.perf_counter()
        for first in range(0, number, CHUNK):
            await components.store.jobs.enqueue_many(new_jobs(components, min(CHUNK, number - first), after))
        return time.perf_counter() - begun


def new_jobs(components: Components, number: int, after: timedelta | None = None) -> list[NewJob]:
    """Return jobs that do nothing."""
    now = components.clock.now()
    at = now if after is None else now + after
    return [NewJob(id=JobId(components.new_id()), kind=KIND, run_at=at) for _ in range(number)]


def enqueue(url: str, number: int, after: timedelta | None = None) -> float:
    """Enqueue jobs in the product's own way and return the jobs per second."""
    return number / trio.run(_enqueue, url, number, after)


def drain(url: str, number: int, **settings: object) -> tuple[float, float]:
    """Let one process work off the jobs there are; return jobs per second until none is left, and its CPU µs each."""
    with open_worker(url, **settings) as worker:
        begun = time.perf_counter()
        worker.go(number)
        worker.wait_handled()
        while count(url, "SELECT count(*) FROM jobs WHERE status = 'running' OR attempt > 0"):
            time.sleep(0.01)  # noqa: TID251
        took = time.perf_counter() - begun
        report = worker.stop()
    return number / took, report.cpu_seconds / number * 1e6


def drain_together(url: str, number: int, instances: int, **settings: object) -> float:
    """Let several processes work off the jobs there are; return jobs per second until none is left."""
    with ExitStack() as stack:
        workers = [stack.enter_context(open_worker(url, **settings)) for _ in range(instances)]
        begun = time.perf_counter()
        for worker in workers:
            worker.go(number)
        while count(url, "SELECT count(*) FROM jobs"):
            time.sleep(0.01)  # noqa: TID251
        took = time.perf_counter() - begun
        for worker in workers:
            worker.stop()
    return number / took
