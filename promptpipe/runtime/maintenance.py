"""Deletes what has had its time, a little at a time, so that the database holds no more than anybody looks at."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import trio

from promptpipe.model.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from promptpipe.model.jobs import JobStatus
    from promptpipe.ports.maintenance import MaintenanceStore, Position
    from promptpipe.runtime.persistence import Persistence

    Prune = Callable[[Position | None], Awaitable[Position | None]]

EVERY_SECONDS = 60.0
BREATH_SECONDS = 0.01
"""Between two batches: others go first."""
INBOUND_MARKS = timedelta(days=30)
"""For so long a provider's message id has no second effect."""
REFUSALS = timedelta(hours=1)
"""For so long nobody waits to hear what became of an order."""


class Maintenance:
    """Prunes every minute. *retention* says for how many seconds jobs that have ended are kept; 0 for ever."""

    name = "maintenance"

    def __init__(self, store: MaintenanceStore, persistence: Persistence, retention: Mapping[JobStatus, float]) -> None:
        self._persistence = persistence
        self._stop = trio.Event()
        self._prunes: list[Prune] = [
            partial(store.prune_history, status, timedelta(seconds=seconds))
            for status, seconds in retention.items()
            if seconds
        ]
        self._prunes += [
            store.prune_job_keys,
            partial(store.prune_inbound_marks, INBOUND_MARKS),
            partial(store.prune_refusals, REFUSALS),
        ]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Prune until stopped; what the store cannot do now is for the next time."""
        task_status.started()
        while not self._stop.is_set():
            try:
                await self._prune_all()
            except StoreUnavailableError as error:
                self._persistence.failed(error)
            await self._pause(EVERY_SECONDS)

    def stop(self) -> None:
        """Begin no other batch."""
        self._stop.set()

    async def _prune_all(self) -> None:
        for prune in self._prunes:
            after = None
            while not self._stop.is_set() and (after := await prune(after)) is not None:
                await self._pause(BREATH_SECONDS)

    async def _pause(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._stop.wait()
