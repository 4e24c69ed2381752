"""Growth: what jobs cost when thousands to a million others are there, waiting for their time or in history."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from bench import filling, jobs
from bench.figures import Figure, figure
from bench.suite import BACK_ENDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.suite import Suite

SIZES = (1_000, 10_000, 100_000, 1_000_000)
NUMBER = 20_000


def figures(suite: Suite) -> Iterator[Figure]:
    """Yield how fast jobs are enqueued and drained, by how many others there are."""
    for back_end in BACK_ENDS:
        first: tuple[float, float] | None = None
        for size in SIZES:
            url = _used(suite, back_end, suite.number(size))
            enqueued, drained = [], []
            for _ in suite.few_rounds:
                enqueued.append(jobs.enqueue(url, suite.number(NUMBER)))
                drained.append(jobs.drain(url, suite.number(NUMBER))[0])
            yield figure(enqueued, group="growth", what=f"enqueued beside {size:,}", of=back_end, unit="/s")
            yield figure(drained, group="growth", what=f"drained beside {size:,}", of=back_end, unit="/s")
            rates = statistics.median(enqueued), statistics.median(drained)
            first = first or rates
            if size == SIZES[-1]:
                for what, now, then in zip(("enqueued", "drained"), rates, first, strict=True):
                    what_of = f"{what} beside {size:,}, of beside {SIZES[0]:,}"
                    yield figure([now / then], group="growth", what=what_of, of=back_end, unit="x")


def _used(suite: Suite, back_end: str, rows: int) -> str:
    """Return a database with so many timers of the future, and as many jobs that have ended."""
    url = suite.databases.new(back_end)
    jobs.enqueue(url, 1)
    jobs.drain(url, 1)
    jobs.enqueue(url, 1, jobs.MONTH)
    filling.copy(url, "jobs", rows, {"id": filling.ID})
    filling.copy(url, "job_history", rows, {"id": filling.ID})
    filling.settle(url)
    return url
