"""Ends of jobs, recorded together: all that have piled up while the commit before was on its way."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from promptpipe.model.errors import StoreUnavailableError
from promptpipe.model.jobs import Ending

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from promptpipe.model.jobs import Outcome
    from promptpipe.model.leases import Lease
    from promptpipe.runtime.lease_keeper import Hold
    from promptpipe.runtime.worker import Worker

    Finish = Callable[[Sequence[Ending]], Awaitable[frozenset[Lease]]]

LAST_WORDS_SECONDS = 2.0
"""For how long ends that are known may be recorded once everything is canceled."""

log = structlog.get_logger(__name__)


class Endings:
    """Records ends of jobs, and keeps their leases until then; *recorded* is called after each commit.

    The first is recorded at once, and those that come meanwhile follow together.
    """

    def __init__(self, finish: Finish, worker: Worker, recorded: Callable[[], object]) -> None:
        self._finish = finish
        self._keeper = worker.keeper
        self._persistence = worker.persistence
        self._metrics = worker.metrics
        self._recorded = recorded
        self._waiting: list[tuple[Hold, Ending]] = []
        self._on_their_way: list[tuple[Hold, Ending]] = []
        self._changed = trio.Event()
        self._stopping = False

    def add(self, hold: Hold, outcome: Outcome) -> None:
        """Have *outcome* recorded; what comes too late, when the lease is lost, has no effect."""
        self._waiting.append((hold, Ending(hold.lease, outcome)))
        self._changed.set()

    def __len__(self) -> int:
        """Return how many are not recorded yet."""
        return len(self._waiting) + len(self._on_their_way)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Record until stopped. Canceled, record what is known: work that is done is not to be done again."""
        task_status.started()
        try:
            while self._waiting or not self._stopping:
                await self._changed.wait()
                await self._gather()
                self._changed = trio.Event()
                self._on_their_way, self._waiting = self._waiting, []
                if self._on_their_way:
                    await self._record()
        except trio.Cancelled:
            self._on_their_way += self._waiting
            self._waiting = []
            with trio.move_on_after(LAST_WORDS_SECONDS, shield=True):
                await self._record_once()
            raise

    def stop(self) -> None:
        """Record what is left, and end."""
        self._stopping = True
        self._changed.set()

    async def _gather(self) -> None:
        """Return as soon as a moment passes in which nothing more has ended."""
        known = -1
        while known < len(self._waiting):
            known = len(self._waiting)
            await trio.lowlevel.checkpoint()

    async def _record(self) -> None:
        endings = [ending for _, ending in self._on_their_way]
        lost = await self._persistence.until_committed(partial(self._finish, endings))
        for hold, ending in self._on_their_way:
            self._keeper.drop(hold)
            if ending.lease in lost:
                log.warning("lease lost", work=ending.lease.work.value, key=ending.lease.key)
                self._metrics.lease_lost(ending.lease.work)
        self._on_their_way = []
        self._recorded()

    async def _record_once(self) -> None:
        try:
            await self._finish([ending for _, ending in self._on_their_way])
        except StoreUnavailableError as error:
            self._persistence.failed(error)
