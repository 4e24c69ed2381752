"""The loop that all runners share: claim due work for the free slots, run each piece in a task of its own."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import trio

from promptpipe.model.errors import StoreUnavailableError
from promptpipe.model.leases import Claim
from promptpipe.model.retry import STORE_BACKOFF
from promptpipe.ports.runners import Offer
from promptpipe.runtime.crew import Crew

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from promptpipe.model.leases import Claimed, Work
    from promptpipe.runtime.worker import Worker

T = TypeVar("T")

POLL_SECONDS = 1.0
"""The longest sleep: whatever wakes a runner, or fails to, this finds the work."""

OFFERED = 16
"""Slots that are kept free for one commit, at most."""


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

    A commit of this process that makes work due may bring it along (`Runners.offer`), unless others wait for a slot.
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
        depth: int = 1,
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
        self._depth = depth
        self._crew = Crew(self._run_one)
        self._nursery: trio.Nursery | None = None
        self._busy = 0
        self._promised = 0
        self._others_wait = True
        self._waits_for_room = False
        self._suspect_runs = False
        self._failures = 0
        self._nudged = trio.Event()
        self.stopping = False
        worker.wakeups.subscribe(work, self.nudge, self.offer)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Claim and run work until stopped and done."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            while not self.stopping:
                self._nudged = trio.Event()
                delay = await self._fill(nursery)
                with trio.move_on_after(delay):
                    await self._nudged.wait()
            while self._promised:
                self._nudged = trio.Event()
                await self._nudged.wait()
            self._nursery = None
            self._crew.dismiss()

    def stop(self) -> None:
        """Claim nothing more."""
        self.stopping = True
        self.nudge()

    def nudge(self) -> bool:
        """Look for work now; return whether a slot is free for it."""
        self._nudged.set()
        return self._free > 0 and not self.stopping

    def offer(self) -> Offer | None:
        """See `Runners.offer`."""
        room = min(self._free, OFFERED)
        if room <= 0 or self.stopping or self._others_wait or self._nursery is None:
            return None
        self._promised += room
        started = self._worker.keeper.started()
        claim = self._request(room, suspect=False, thorough=False)
        return Offer(claim, partial(self._take, room, started))

    def _take(self, room: int, started: float, items: Sequence[T]) -> None:
        self._promised -= room
        if items and self._nursery is not None:  # without one, all is canceled, and leases are given back
            self._worker.metrics.claimed(self._work, len(items))
            for item in items:
                self._start(self._nursery, Piece(item, started, suspect=False))
        if self.stopping or (self._waits_for_room and self._free > 0):
            self.nudge()

    @property
    def _free(self) -> int:
        return self._slots - self._busy - self._promised - self._unfinished()

    def _request(self, limit: int, *, suspect: bool, thorough: bool) -> Claim:
        keeper = self._worker.keeper
        return Claim(
            worker=self._worker.id,
            limit=limit,
            seconds=keeper.lease_seconds,
            held=keeper.held(self._work),
            suspect=suspect,
            thorough=thorough,
            sight=POLL_SECONDS,
            depth=self._depth,
        )

    async def _fill(self, nursery: trio.Nursery) -> float:
        """Claim work for the free slots and start it; return for how long there will be nothing to claim."""
        wanted = min(self._free, self._at_once)
        self._waits_for_room = wanted <= 0
        if self._waits_for_room:
            return math.inf  # the end of a piece of work nudges
        started = self._worker.keeper.started()
        thorough = started >= self._thorough_at
        request = self._request(wanted, suspect=not self._suspect_runs, thorough=thorough)
        self._promised += wanted
        try:
            claimed = await self._claim(request)
        except StoreUnavailableError as error:
            self._failures += 1
            self._worker.persistence.failed(error)
            return STORE_BACKOFF.delay(self._failures, self._worker.random)
        finally:
            self._promised -= wanted
        self._failures = 0
        self._others_wait = len(claimed.items) == wanted
        self._worker.metrics.claimed(self._work, len(claimed.items) + (claimed.suspect is not None))
        if thorough:
            self._thorough_at = started + POLL_SECONDS
        for item in claimed.items:
            self._start(nursery, Piece(item, started, suspect=False))
        if claimed.suspect is not None:
            self._start(nursery, Piece(claimed.suspect, started, suspect=True))
        if len(claimed.items) == wanted:
            self._waits_for_room = self._free <= 0
            return math.inf if self._waits_for_room else 0.0
        return min(POLL_SECONDS, POLL_SECONDS if claimed.next_due_in is None else claimed.next_due_in)

    def _start(self, nursery: trio.Nursery, piece: Piece[T]) -> None:
        self._busy += 1
        self._suspect_runs = self._suspect_runs or piece.suspect
        self._crew.do(piece, nursery)

    async def _run_one(self, piece: Piece[T], scope: trio.CancelScope) -> None:
        try:
            await self._handle(piece, scope)
        finally:
            self._busy -= 1
            if piece.suspect:
                self._suspect_runs = False
            if piece.suspect or (self._waits_for_room and self._free > 0):
                self.nudge()
