"""Recovery by one instance at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from promptpipe.model.errors import PreconditionError, StoreUnavailableError
from promptpipe.model.recovery import RecoveryReport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from promptpipe.model.recovery import ComponentReport
    from promptpipe.ports.recovery import RecoveryStore
    from promptpipe.recovery import RecoveryManager
    from promptpipe.runtime.lease_keeper import Hold
    from promptpipe.runtime.worker import Worker

LOOK_AGAIN_SECONDS = 5.0

log = structlog.get_logger(__name__)


class ExclusiveRecovery:
    """Runs recovery under a lease; whoever does not get it leaves the work to the holder."""

    def __init__(self, manager: RecoveryManager, store: RecoveryStore, worker: Worker) -> None:
        self._manager = manager
        self._store = store
        self._worker = worker

    async def run_all(self) -> RecoveryReport:
        """Recover everything, and return the report; raise `PreconditionError` when another instance does so."""
        report: RecoveryReport | None = None

        async def recover() -> None:
            nonlocal report
            report = await self._manager.recover_all()

        await self._alone(recover)
        if report is None:
            raise PreconditionError("another instance is recovering")
        return report

    async def run_components(self, started_at: datetime, repairs: tuple[ComponentReport, ...]) -> RecoveryReport | None:
        """Recover the components after *repairs*, and return the report of both.

        Return None when another instance has done it since *started_at*; one that dies over it is replaced.
        """
        report: RecoveryReport | None = None

        async def recover() -> None:
            nonlocal report
            recovered = await self._manager.recover_components()
            finished_at = self._worker.clock.now()
            report = RecoveryReport(started_at=started_at, finished_at=finished_at, components=repairs + recovered)
            await self._keep(report)

        while True:
            await self._alone(recover)
            if report is not None or await self._done_elsewhere(started_at):
                return report
            await trio.sleep(LOOK_AGAIN_SECONDS)

    async def _alone(self, recover: Callable[[], Awaitable[None]]) -> None:
        """Await *recover* under the lease, if it can be had; it is canceled when that is lost."""
        keeper, persistence = self._worker.keeper, self._worker.persistence
        started = keeper.started()
        lease = await persistence.until_committed(lambda: self._store.begin(keeper.lease_seconds))
        if lease is None:
            return

        async def work(_: Hold) -> None:
            await recover()

        with trio.CancelScope() as scope:
            await keeper.hold(lease, started, scope, work)
        await persistence.until_committed(lambda: self._store.end(lease))

    async def _done_elsewhere(self, since: datetime) -> bool:
        report = await self._worker.persistence.until_committed(self._store.last_report)
        return report is not None and report.finished_at >= since

    async def _keep(self, report: RecoveryReport) -> None:
        try:
            await self._store.save_report(report)
        except StoreUnavailableError as error:
            log.warning("recovery report not kept", error=str(error))
