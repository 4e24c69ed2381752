"""Fires schedules when they are due. What they make are jobs, which the job runner runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from promptpipe.model.errors import StoreUnavailableError
from promptpipe.model.leases import Work
from promptpipe.model.retry import STORE_BACKOFF
from promptpipe.runtime.claim_loop import POLL_SECONDS

if TYPE_CHECKING:
    from promptpipe.ports.schedules import ScheduleStore
    from promptpipe.runtime.worker import Worker

BATCH = 100
"""Schedules in one commit: their next times are computed in a few milliseconds, in which nothing else runs."""

log = structlog.get_logger(__name__)


class ScheduleRunner:
    """Lets due schedules make their jobs, batch after batch, and sleeps until the next is due."""

    name = "schedule runner"

    def __init__(self, store: ScheduleStore, worker: Worker) -> None:
        self._store = store
        self._worker = worker
        self._failures = 0
        self._stopping = False
        self._nudged = trio.Event()
        worker.wakeups.subscribe(Work.SCHEDULE, self._nudge)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fire schedules until stopped."""
        task_status.started()
        while not self._stopping:
            self._nudged = trio.Event()
            delay = await self._fire()
            with trio.move_on_after(delay):
                await self._nudged.wait()

    def stop(self) -> None:
        """Fire nothing more."""
        self._stopping = True
        self._nudge()

    def _nudge(self) -> bool:
        """Look at what is due; return whether that will happen."""
        self._nudged.set()
        return not self._stopping

    async def _fire(self) -> float:
        """Fire a batch, and return for how long there will be nothing to fire."""
        try:
            fired = await self._store.fire(BATCH)
        except StoreUnavailableError as error:
            self._failures += 1
            self._worker.persistence.failed(error)
            return STORE_BACKOFF.delay(self._failures, self._worker.random)
        self._failures = 0
        for schedule_id in fired.unreadable:
            log.error("schedule paused: its rule cannot be read", schedule=schedule_id)
        return POLL_SECONDS if fired.next_due_in is None else min(POLL_SECONDS, fired.next_due_in)
