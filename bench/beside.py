"""Jobs beside what slows queues down: timers of the future, an open snapshot, other instances."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from bench import jobs
from bench.figures import Figure, figure
from tests.support.postgres import open_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.suite import Suite

BACK_END = "postgres"
TIMERS = 100_000


def figures(suite: Suite) -> Iterator[Figure]:
    """Yield what they cost, each against a plain run just before it."""
    timers, snapshot, two, four = [], [], [], []
    for _ in suite.many_rounds:
        timers.append(1 / _drained(suite) * _drained(suite, timers=suite.number(TIMERS)))
        snapshot.append(1 / _drained(suite) * _drained(suite, snapshot=True))
        two.append(1 / _drained(suite) * _together(suite, 2))
        four.append(1 / _drained(suite) * _together(suite, 4))
    new = partial(figure, group="beside", of=BACK_END, unit="x")
    yield new(timers, what="drained with 100,000 timers of the future, of plain", at_least=0.9)
    yield new(snapshot, what="drained beside an open snapshot, of plain", at_least=0.8)
    yield new(two, what="drained by 2 instances, of one")
    yield new(four, what="drained by 4 instances, of one")


def _drained(suite: Suite, *, timers: int = 0, snapshot: bool = False) -> float:
    number, url = suite.number(jobs.NUMBER), suite.databases.new(BACK_END)
    if timers:
        jobs.enqueue(url, timers, jobs.MONTH)
    with ExitStack() as stack:
        if snapshot:
            stack.enter_context(open_snapshot(url))
        jobs.enqueue(url, number)
        return jobs.drain(url, number)[0]


def _together(suite: Suite, instances: int) -> float:
    number, url = suite.number(jobs.NUMBER), suite.databases.new(BACK_END)
    jobs.enqueue(url, number)
    return jobs.drain_together(url, number, instances)
