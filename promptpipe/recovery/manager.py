"""Runs every recovery, collects what went wrong, and reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.recovery import ComponentReport, RecoveryReport
from promptpipe.ports.metrics import SILENT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from promptpipe.ports.clock import Clock
    from promptpipe.ports.metrics import Metrics
    from promptpipe.recovery.registry import Recoverable, RecoveryRegistry

SCHEDULES_AT_ONCE = 200


class RecoveryManager:
    """Recovers in two parts: set-based repairs that must come first, and components while the service works.

    The repairs fail as a whole, for nothing may start on a store they did not pass. A component that fails is
    reported; the others recover.
    """

    def __init__(self, registry: RecoveryRegistry, clock: Clock, metrics: Metrics = SILENT) -> None:
        self._registry = registry
        self._clock = clock
        self._metrics = metrics
        self._recoverables: list[Recoverable] = []

    def register(self, recoverable: Recoverable) -> None:
        """Add a component; components recover in the order in which they were added."""
        self._recoverables.append(recoverable)

    async def repair(self) -> tuple[ComponentReport, ...]:
        """Do the fast part: nothing is leased to a worker that is gone, and what it was sending is in doubt.

        Schedules have their next time.
        """
        store = self._registry.store
        repairs: dict[str, Callable[[], Awaitable[int]]] = {
            "requeue_stale_running_jobs": store.requeue_stale_running_jobs,
            "release_stale_mailboxes": store.release_stale_mailboxes,
            "requeue_stale_sending_messages": store.requeue_stale_sending_messages,
            "repair_schedules": self._repair_schedules,
        }
        return tuple([await self._repair(name, repair) for name, repair in repairs.items()])

    async def recover_components(self) -> tuple[ComponentReport, ...]:
        """Do the part that goes on while the service works."""
        return tuple([await self._recover(recoverable) for recoverable in self._recoverables])

    async def recover_all(self) -> RecoveryReport:
        """Do both parts, keep the report, and return it."""
        started_at = self._clock.now()
        components = await self.repair() + await self.recover_components()
        report = RecoveryReport(started_at=started_at, finished_at=self._clock.now(), components=components)
        await self._registry.store.save_report(report)
        return report

    async def _repair(self, name: str, repair: Callable[[], Awaitable[int]]) -> ComponentReport:
        began = self._clock.boottime()
        restored = await repair()
        seconds = self._clock.boottime() - began
        return self._told(ComponentReport(name=name, checked=restored, restored=restored, seconds=seconds))

    def _told(self, report: ComponentReport) -> ComponentReport:
        self._metrics.recovered(report)
        return report

    async def _repair_schedules(self) -> int:
        total = 0
        while repaired := await self._registry.store.repair_schedules(SCHEDULES_AT_ONCE):
            total += repaired
        return total

    async def _recover(self, recoverable: Recoverable) -> ComponentReport:
        began = self._clock.boottime()
        registry = self._registry.for_component()
        tally = registry.tally
        try:
            await recoverable.recover_state(registry)
        except Exception as error:  # noqa: BLE001  one component's failure is reported; the others recover
            tally.fail(recoverable.name, error)
        return self._told(
            ComponentReport(
                name=recoverable.name,
                checked=tally.checked,
                restored=tally.restored,
                failed=tally.failed,
                failures=tuple(tally.failures),
                seconds=self._clock.boottime() - began,
            )
        )
