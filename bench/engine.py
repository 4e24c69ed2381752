"""The durable engine: jobs and the outbox on both back ends, as in production.

Run it with `make bench` or `python -m bench.engine [--json] [--quick] [URL]`. A server of its own, with PostgreSQL's
default settings; the service, the producers and the server share the machine. Figures are medians of rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import trio

from bench import jobs, outbox
from bench.databases import open_databases
from bench.worker import KIND, open_worker, settings_for
from promptpipe import app
from promptpipe.model.ids import JobId
from promptpipe.model.jobs import NewJob

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.databases import Databases

BACK_ENDS = ("postgres", "sqlite")
SLOTS = 500


@dataclass(frozen=True)
class Figure:
    """One measurement: *value* in *unit*, the median of the rounds, of which *low* and *high* are the ends."""

    what: str
    back_end: str
    value: float
    unit: str
    low: float
    high: float
    bar: str = ""


def figure(what: str, back_end: str, values: list[float], unit: str, bar: str = "") -> Figure:
    """Return the figure that rounds make."""
    return Figure(what, back_end, statistics.median(values), unit, min(values), max(values), bar)


class Engine:
    """Measures on fresh databases. *scale* is 1 for all there is to do, less for a look."""

    def __init__(self, databases: Databases, scale: float, rounds: int) -> None:
        self._databases = databases
        self._scale = scale
        self._rounds = range(rounds)

    def number(self, wanted: int) -> int:
        """Return how many there are to be."""
        return max(100, int(wanted * self._scale))

    def figures(self) -> Iterator[Figure]:
        """Measure everything."""
        for back_end in BACK_ENDS:
            yield from self.drained(back_end)
            yield from self.latency(back_end)
            yield from self.outbox(back_end)
        yield from self.beside_others()
        yield from self.instances()

    def drained(self, back_end: str) -> Iterator[Figure]:
        """Yield how fast jobs are enqueued and drained, and at what cost."""
        number = self.number(40_000)
        enqueued, drained, cpu = [], [], []
        for _ in self._rounds:
            url = self._databases.new(back_end)
            enqueued.append(jobs.enqueue(url, number))
            per_second, micros = jobs.drain(url, number, job_concurrency=SLOTS)
            drained.append(per_second)
            cpu.append(micros)
        yield figure("jobs enqueued in thousands", back_end, enqueued, "/s")
        yield figure("no-op jobs drained", back_end, drained, "/s", ">= 20,000/s")
        yield figure("the service's CPU for each", back_end, cpu, "us")

    def latency(self, back_end: str) -> Iterator[Figure]:
        """Yield how soon a job starts that is enqueued by itself."""
        if back_end == "sqlite":
            return  # one process: there is nobody else to enqueue
        url = self._databases.new(back_end)
        number = self.number(500)
        with open_worker(url) as worker:
            worker.go(number)
            time.sleep(1.0)  # noqa: TID251
            trio.run(partial(_enqueue_slowly, url, number))
            worker.wait_handled()
            latencies = sorted(worker.stop().latencies)
        for share, bar in ((0.5, "<= 4 ms"), (0.99, "<= 10 ms")):
            value = 1000 * latencies[int(share * (len(latencies) - 1))]
            yield Figure(f"enqueue to start, idle, p{100 * share:.0f}", back_end, value, "ms", value, value, bar)

    def outbox(self, back_end: str) -> Iterator[Figure]:
        """Yield how fast messages leave."""
        number = self.number(20_000)
        rates, cpu, disorder = [], [], 0
        for _ in self._rounds:
            per_second, micros, lost = outbox.send(self._databases.new(back_end), 400, number)
            rates.append(per_second)
            cpu.append(micros)
            disorder += lost
        yield figure("messages sent to 400 people", back_end, rates, "/s", ">= 5,000/s")
        yield figure("the service's CPU for each", back_end, cpu, "us")
        yield Figure("messages out of order", back_end, disorder, "", disorder, disorder, "0")

    def beside_others(self) -> Iterator[Figure]:
        """Yield what timers of the future and an open snapshot cost, each against a plain run beside it."""
        number = self.number(40_000)
        with_timers, with_snapshot = [], []
        for _ in self._rounds:
            plain = self._drained(number)
            with_timers.append(self._drained(number, timers=self.number(100_000)) / plain)
            with_snapshot.append(self._drained(number, snapshot=True) / plain)
        yield figure("drained with 100,000 timers of the future", "postgres", with_timers, "of plain", ">= 0.90")
        yield figure("drained beside an open snapshot", "postgres", with_snapshot, "of plain", ">= 0.80")

    def _drained(self, number: int, *, timers: int = 0, snapshot: bool = False) -> float:
        url = self._databases.new("postgres")
        if timers:
            jobs.enqueue(url, timers, timedelta(days=30))
        with ExitStack() as stack:
            if snapshot:
                stack.enter_context(_open_snapshot(url))
            jobs.enqueue(url, number)
            return jobs.drain(url, number, job_concurrency=SLOTS)[0]

    def instances(self) -> Iterator[Figure]:
        """Yield what two and four instances drain together, against one."""
        number = self.number(40_000)
        for instances in (2, 4):
            rates = []
            for _ in self._rounds:
                url = self._databases.new("postgres")
                jobs.enqueue(url, number)
                alone = self._drained(number)
                rates.append(jobs.drain_together(url, number, instances, job_concurrency=SLOTS) / alone)
            yield figure(f"drained by {instances} instances", "postgres", rates, "of one")


async def _enqueue_slowly(url: str, number: int) -> None:
    async with app.open_components(settings_for(url)) as components, trio.open_nursery() as nursery:
        for task in components.store.background:
            nursery.start_soon(task)
        await trio.sleep(0.5)
        for _ in range(number):
            new = NewJob(
                id=JobId(components.new_id()),
                kind=KIND,
                run_at=components.clock.now(),
                payload={"sent": str(time.time_ns())},
            )
            await components.store.jobs.enqueue(new)
            await trio.sleep(0.02)
        nursery.cancel_scope.cancel()


@contextmanager
def _open_snapshot(url: str) -> Iterator[None]:
    with psycopg.connect(url) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT count(*) FROM pg_class")
        yield
        connection.rollback()


def versions() -> dict[str, Any]:
    """Return what was measured with."""
    return {
        "python": platform.python_version(),
        "trio": trio.__version__,
        "psycopg": f"{psycopg.__version__} ({psycopg.pq.__impl__})",
        "sqlite": sqlite3.sqlite_version,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("url", nargs="?", help="a PostgreSQL server; without, one is started")
    options.add_argument("--json", action="store_true", help="one line per measurement")
    options.add_argument("--quick", action="store_true", help="a tenth of everything, once")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, open_databases(Path(folder), chosen.url) as databases:
        engine = Engine(databases, 0.1 if chosen.quick else 1.0, 1 if chosen.quick else 3)
        print(json.dumps(versions()), flush=True)
        for measured in engine.figures():
            if chosen.json:
                print(json.dumps(asdict(measured)), flush=True)
            else:
                spread = f"({measured.low:,.2f} to {measured.high:,.2f})"
                print(
                    f"{measured.what:<42} {measured.back_end:<9} {measured.value:>12,.2f} {measured.unit:<9}"
                    f" {spread:<28} {measured.bar}",
                    flush=True,
                )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
