"""Runs every recovery, collects what went wrong, and reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.errors import StoreUnavailableError
from promptpipe.model.recovery import MAX_NAMED, ComponentReport, RecoveryReport
from promptpipe.ports.metrics import SILENT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from promptpipe.ports.clock import Clock
    from promptpipe.ports.metrics import Metrics
    from promptpipe.recovery.registry import Recoverable, RecoveryRegistry

    Persist = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]

SCHEDULES_AT_ONCE = 200
NO_NEXT_TIME = "a schedule without a next time"
ON_THE_WIRE = "on the wire when its sender vanished"


async def once(function: Callable[[], Awaitable[None]]) -> None:
    """Call *function* whatever comes of it: the other way is to call it again when the store cannot be reached."""
    await function()


class RecoveryManager:
    """Recovers in two parts: set-based repairs that must come first, and components while the service works.

    The repairs fail as a whole, for nothing may start on a store they did not pass. A component that fails is
    reported; the others recover. *persist* calls what it is given again when the store could not be reached.
    """

    def __init__(
        self, registry: RecoveryRegistry, clock: Clock, metrics: Metrics = SILENT, persist: Persist = once
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._metrics = metrics
        self._persist = persist
        self._recoverables: list[Recoverable] = []

    def register(self, recoverable: Recoverable) -> None:
        """Add a component; components recover in the order in which they were added."""
        self._recoverables.append(recoverable)

    async def repair(self) -> tuple[ComponentReport, ...]:
        """Do the fast part: nothing is leased to a worker that is gone, and what it was sending is in doubt.

        Schedules have their next time.
        """
        store = self._registry.store
        return (
            await self._repair("requeue_stale_running_jobs", store.requeue_stale_running_jobs),
            await self._repair("release_stale_mailboxes", store.release_stale_mailboxes),
            await self._repair("requeue_stale_sending_messages", store.requeue_stale_sending_messages, ON_THE_WIRE),
            await self._repair("repair_schedules", self._repair_schedules, NO_NEXT_TIME),
        )

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

    async def look(self) -> RecoveryReport:
        """Return what recovery would find, and change nothing; the registry must be one that only looks."""
        started_at, store = self._clock.now(), self._registry.store
        leases = await store.ended_leases()
        schedules = await store.stray_schedules(SCHEDULES_AT_ONCE)
        components = (
            ComponentReport(
                name="leases",
                checked=sum(leases.values()),
                restored=sum(leases.values()),
                repairs=tuple((work, f"leased until a time that is over: {n}") for work, n in leases.items()),
            ),
            _report_of("repair_schedules", schedules, NO_NEXT_TIME),
            *await self.recover_components(),
        )
        return RecoveryReport(started_at=started_at, finished_at=self._clock.now(), components=components)

    async def _repair(
        self, name: str, repair: Callable[[], Awaitable[int | Sequence[str]]], finding: str = ""
    ) -> ComponentReport:
        began = self._clock.boottime()
        restored = await repair()
        return self._told(_report_of(name, restored, finding, self._clock.boottime() - began))

    def _told(self, report: ComponentReport) -> ComponentReport:
        self._metrics.recovered(report)
        return report

    async def _repair_schedules(self) -> Sequence[str]:
        repaired: list[str] = []
        while some := await self._registry.store.repair_schedules(SCHEDULES_AT_ONCE):
            repaired += some
        return repaired

    async def _recover(self, recoverable: Recoverable) -> ComponentReport:
        began = self._clock.boottime()
        registry = self._registry.for_component(recoverable.name)
        tally = registry.tally

        async def recover() -> None:
            tally.forget_failures()  # of the attempt before, which the store has ended
            try:
                await recoverable.recover_state(registry)
            except StoreUnavailableError:
                raise
            except Exception as error:  # noqa: BLE001  one component's failure is reported; the others recover
                tally.fail(recoverable.name, error)

        try:
            await self._persist(recover)
        except StoreUnavailableError as error:
            tally.fail(recoverable.name, error)
        return self._told(
            ComponentReport(
                name=recoverable.name,
                checked=tally.checked,
                restored=tally.restored,
                failed=tally.failed,
                repairs=tuple(tally.repairs),
                failures=tuple(tally.failures),
                seconds=self._clock.boottime() - began,
            )
        )


def _report_of(name: str, restored: int | Sequence[str], finding: str, seconds: float = 0.0) -> ComponentReport:
    """Return a report of what was restored: how many, or which ones."""
    count, named = (restored, ()) if isinstance(restored, int) else (len(restored), restored[:MAX_NAMED])
    repairs = tuple((subject, finding) for subject in named)
    return ComponentReport(name=name, checked=count, restored=count, repairs=repairs, seconds=seconds)
