"""The loop that all runners share: claim due work for the free slots, run each piece in a task of its own."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

from promptpipe.model.errors import StoreUnavailableError
from promptpipe.model.leases import Claim
from promptpipe.model.retry import STORE_BACKOFF

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from promptpipe.model.leases import Claimed, Work
    from promptpipe.runtime.worker import Worker

T = TypeVar("T")

POLL_SECONDS = 1.0
"""The longest sleep: whatever wakes a runner, or fails to, this finds the work."""


class ClaimLoop(Generic[T]):
    """Keeps up to *slots* pieces of due work running; after `stop` it claims nothing more, and ends with the last.

    At most one suspect runs at a time, and only when a slot was left free by the others.
    """

    def __init__(
        self,
        work: Work,
        worker: Worker,
        *,
        slots: int,
        claim: Callable[[Claim], Awaitable[Claimed[T]]],
        handle: Callable[[T, float], Awaitable[None]],
    ) -> None:
        self._work = work
        self._worker = worker
        self._slots = slots
        self._claim = claim
        self._handle = handle
        self._busy = 0
        self._suspect_runs = False
        self._failures = 0
        self._nudged = trio.Event()
        self.stopping = False
        worker.wakeups.subscribe(work, self._nudge)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Claim and run work until stopped and done."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while not self.stopping:
                self._nudged = trio.Event()
                delay = await self._fill(nursery)
                with trio.move_on_after(delay):
                    await self._nudged.wait()

    def stop(self) -> None:
        """Claim nothing more."""
        self.stopping = True
        self._nudge()

    def _nudge(self) -> bool:
        """Look for work now; return whether a slot is free for it."""
        self._nudged.set()
        return self._busy < self._slots and not self.stopping

    async def _fill(self, nursery: trio.Nursery) -> float:
        """Claim work for the free slots and start it; return for how long there will be nothing to claim."""
        free = self._slots - self._busy
        if free == 0:
            return math.inf  # the end of a piece of work nudges
        keeper = self._worker.keeper
        started = keeper.started()
        request = Claim(
            worker=self._worker.id,
            limit=free,
            seconds=keeper.lease_seconds,
            held=keeper.held(self._work),
            suspect=not self._suspect_runs,
        )
        try:
            claimed = await self._claim(request)
        except StoreUnavailableError as error:
            self._failures += 1
            self._worker.persistence.failed(error)
            return STORE_BACKOFF.delay(self._failures, self._worker.random)
        self._failures = 0
        for item in claimed.items:
            self._start(nursery, item, started)
        if claimed.suspect is not None:
            self._start(nursery, claimed.suspect, started, suspect=True)
        if len(claimed.items) == free:
            return 0.0 if self._busy < self._slots else math.inf
        return min(POLL_SECONDS, POLL_SECONDS if claimed.next_due_in is None else claimed.next_due_in)

    def _start(self, nursery: trio.Nursery, item: T, started: float, *, suspect: bool = False) -> None:
        self._busy += 1
        self._suspect_runs = self._suspect_runs or suspect
        nursery.start_soon(partial(self._run_one, item, started, suspect=suspect))

    async def _run_one(self, item: T, started: float, *, suspect: bool) -> None:
        try:
            await self._handle(item, started)
        finally:
            was_full = self._busy == self._slots
            self._busy -= 1
            if suspect:
                self._suspect_runs = False
            if was_full or suspect:
                self._nudge()
