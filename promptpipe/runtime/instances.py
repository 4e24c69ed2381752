"""Many processes on one database: each gives signs of life, and takes over the work of those that give none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
import trio

from promptpipe.model.errors import StoreUnavailableError
from promptpipe.runtime.processes import has_ended, this_process

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from promptpipe.model.ids import WorkerId
    from promptpipe.model.leases import Instance
    from promptpipe.ports.instances import InstanceStore
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
    """Tells the dead from those who cannot be seen. Instants are of a clock that counts suspension.

    *has_ended* tells of a process, by its name, whether it has ended for certain.
    """

    def __init__(self, has_ended: Callable[[str], bool]) -> None:
        self._has_ended = has_ended
        self._seen: dict[WorkerId, _Seen] = {}
        self._last: float | None = None

    def observe(self, now: float, others: Mapping[WorkerId, Instance]) -> list[WorkerId]:
        """Take note of everybody's count of signs; return who is dead."""
        if self._last is None or now - self._last > CONTACT_SECONDS:
            self._seen.clear()
        self._last = now
        for worker in set(self._seen) - set(others):
            del self._seen[worker]
        for worker, other in others.items():
            if worker not in self._seen or self._seen[worker].beats != other.beats:
                self._seen[worker] = _Seen(other.beats, now)
        return [
            worker
            for worker, other in others.items()
            if now - self._seen[worker].since >= DEAD_SECONDS or self._has_ended(other.process)
        ]

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
        self._process = this_process()
        self._observer = Observer(has_ended)
        self._somebody_died = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Beat and watch until canceled; started once this process is among the instances, and the dead are not."""
        await self._worker.persistence.until_committed(self._watch)
        task_status.started()
        while True:
            await trio.sleep(BEAT_SECONDS)
            try:
                await self._watch()
                if self._somebody_died:
                    await self._take_over()
                    self._somebody_died = False
            except StoreUnavailableError as error:
                self._observer.lose_contact()
                self._worker.persistence.failed(error)

    async def _watch(self) -> None:
        others = await self._store.beat(self._worker.id, self._process, ready=self._ready())
        for dead in self._observer.observe(self._worker.clock.boottime(), others):
            if await self._store.bury(dead, others[dead].beats):
                log.warning("an instance has died; its work goes on here and elsewhere", instance=dead)
                self._somebody_died = True
