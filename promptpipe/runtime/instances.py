"""Many processes on one database: each gives signs of life, and takes over the work of those that give none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
import trio

from promptpipe.model.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from promptpipe.model.ids import WorkerId
    from promptpipe.ports.store import InstanceStore
    from promptpipe.runtime.worker import Worker

BEAT_SECONDS = 3.0
"""Between two signs of life."""

DEAD_SECONDS = 15.0
"""Who has given none for so long, before an observer who was in contact with the database all the time, is dead."""

CONTACT_SECONDS = 2 * BEAT_SECONDS
"""A longer pause between two observations interrupts the contact: of this process, of the machine, of the database."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Seen:
    beats: int
    since: float


class Observer:
    """Tells the dead from those who cannot be seen. Instants are of a clock that counts suspension."""

    def __init__(self) -> None:
        self._seen: dict[WorkerId, _Seen] = {}
        self._last: float | None = None

    def observe(self, now: float, beats: Mapping[WorkerId, int]) -> list[WorkerId]:
        """Take note of everybody's count of signs; return who is dead."""
        if self._last is None or now - self._last > CONTACT_SECONDS:
            self._seen.clear()
        self._last = now
        for worker in set(self._seen) - set(beats):
            del self._seen[worker]
        for worker, count in beats.items():
            if worker not in self._seen or self._seen[worker].beats != count:
                self._seen[worker] = _Seen(count, now)
        return [worker for worker, seen in self._seen.items() if now - seen.since >= DEAD_SECONDS]

    def lose_contact(self) -> None:
        """Note that the database could not be reached: nobody is judged by what could not be seen."""
        self._last = None


class InstanceWatch:
    """Gives this process's signs of life and looks at the others'. *take_over* makes the work of the dead due again."""

    name = "instance watch"

    def __init__(
        self,
        store: InstanceStore,
        worker: Worker,
        *,
        ready: Callable[[], bool],
        take_over: Callable[[], Awaitable[object]],
    ) -> None:
        self._store = store
        self._worker = worker
        self._ready = ready
        self._take_over = take_over
        self._observer = Observer()
        self._somebody_died = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Beat and watch until canceled; started once this process is among the instances."""
        await self._worker.persistence.until_committed(self._beat)
        task_status.started()
        while True:
            await trio.sleep(BEAT_SECONDS)
            try:
                await self._watch()
            except StoreUnavailableError as error:
                self._observer.lose_contact()
                self._worker.persistence.failed(error)

    async def _beat(self) -> Mapping[WorkerId, int]:
        return await self._store.beat(self._worker.id, ready=self._ready())

    async def _watch(self) -> None:
        beats = await self._beat()
        for dead in self._observer.observe(self._worker.clock.boottime(), beats):
            if await self._store.bury(dead, beats[dead]):
                log.warning("an instance has died; its work goes on here and elsewhere", instance=dead)
                self._somebody_died = True
        if self._somebody_died:
            await self._take_over()
            self._somebody_died = False
