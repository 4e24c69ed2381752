"""The loop that all runners share: claim due work for the free slots, run each piece in a task of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import trio

from promptpipe.model.errors import StoreUnavailableError
from promptpipe.model.leases import Claim
from promptpipe.model.retry import STORE_BACKOFF
from promptpipe.runtime.crew import Crew

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from promptpipe.model.leases import Claimed, Work
    from promptpipe.runtime.worker import Worker

T = TypeVar("T")

POLL_SECONDS = 1.0
"""The longest sleep: whatever wakes a runner, or fails to, this finds the work."""


class Piece(NamedTuple, Generic[T]):
    """Work that was claimed, at a time of the keeper's clock.

    A *suspect* has the one slot for its like only until it is no longer one.
    """

    item: T
    claimed_at: float
    suspect: bool


class ClaimLoop(Generic[T]):
    """Keeps up to *slots* pieces of due work running; after `stop` it claims nothing more, and ends with the last.

    At most one suspect runs at a time, and only when a slot was left free by the others. A piece needs its slot while
    *handle* works on it, and then for as long as it is among the *unfinished*; whoever lowers their number nudges.
    """

    def __init__(
        self,
        work: Work,
        worker: Worker,
        *,
        slots: int,
        claim: Callable[[Claim], Awaitable[Claimed[T]]],
        handle: Callable[[Piece[T], trio.CancelScope], Awaitable[None]],
        unfinished: Callable[[], int] = lambda: 0,
    ) -> None:
        self._work = work
        self._worker = worker
        self._slots = slots
        # Half of them: while the ends of some are recorded, others are claimed.
        self._at_once = (slots + 1) // 2
        self._thorough_at = -math.inf
        self._claim = claim
        self._handle = handle
        self._unfinished = unfinished
        self._crew = Crew(self._run_one)
        self._busy = 0
        self._suspect_runs = False
        self._failures = 0
        self._nudged = trio.Event()
        self.stopping = False
        worker.wakeups.subscribe(work, self.nudge)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Claim and run work until stopped and done."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while not self.stopping:
                self._nudged = trio.Event()
                delay = await self._fill(nursery)
                with trio.move_on_after(delay):
                    await self._nudged.wait()
            self._crew.dismiss()

    def stop(self) -> None:
        """Claim nothing more."""
        self.stopping = True
        self.nudge()

    def nudge(self) -> bool:
        """Look for work now; return whether a slot is free for it."""
        self._nudged.set()
        return self._free > 0 and not self.stopping

    @property
    def _free(self) -> int:
        return self._slots - self._busy - self._unfinished()

    async def _fill(self, nursery: trio.Nursery) -> float:
        """Claim work for the free slots and start it; return for how long there will be nothing to claim."""
        wanted = min(self._free, self._at_once)
        if wanted == 0:
            return math.inf  # the end of a piece of work nudges
        keeper = self._worker.keeper
        started = keeper.started()
        thorough = started >= self._thorough_at
        request = Claim(
            worker=self._worker.id,
            limit=wanted,
            seconds=keeper.lease_seconds,
            held=keeper.held(self._work),
            suspect=not self._suspect_runs,
            thorough=thorough,
        )
        try:
            claimed = await self._claim(request)
        except StoreUnavailableError as error:
            self._failures += 1
            self._worker.persistence.failed(error)
            return STORE_BACKOFF.delay(self._failures, self._worker.random)
        self._failures = 0
        self._worker.metrics.claimed(self._work, len(claimed.items) + (claimed.suspect is not None))
        if thorough:
            self._thorough_at = started + POLL_SECONDS
        for item in claimed.items:
            self._start(nursery, Piece(item, started, suspect=False))
        if claimed.suspect is not None:
            self._start(nursery, Piece(claimed.suspect, started, suspect=True))
        if len(claimed.items) == wanted:
            return 0.0 if self._free else math.inf
        return min(POLL_SECONDS, POLL_SECONDS if claimed.next_due_in is None else claimed.next_due_in)

    def _start(self, nursery: trio.Nursery, piece: Piece[T]) -> None:
        self._busy += 1
        self._suspect_runs = self._suspect_runs or piece.suspect
        self._crew.do(piece, nursery)

    async def _run_one(self, piece: Piece[T], scope: trio.CancelScope) -> None:
        try:
            await self._handle(piece, scope)
        finally:
            was_full = self._free <= 0
            self._busy -= 1
            if piece.suspect:
                self._suspect_runs = False
            if was_full or piece.suspect:
                self.nudge()
