"""Keeping leases while the work under them goes on, and stopping the work whose lease is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from promptpipe.model.errors import LeaseLostError, StoreUnavailableError
from promptpipe.model.leases import KEPT_SHARE
from promptpipe.ports.metrics import SILENT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from promptpipe.model.leases import Lease, Work
    from promptpipe.ports.clock import Clock
    from promptpipe.ports.metrics import Metrics
    from promptpipe.ports.store import LeaseStore
    from promptpipe.runtime.persistence import Persistence

log = structlog.get_logger(__name__)


class Hold:
    """A lease that work goes on under. *scope* is canceled to stop that; it may be another's once the work has ended.

    *expires* is judged on the clock that counts suspension.
    """

    __slots__ = ("cancel_requested", "expires", "lease", "lost", "scope")

    def __init__(self, lease: Lease, expires: float, scope: trio.CancelScope) -> None:
        self.lease = lease
        self.expires = expires
        self.scope: trio.CancelScope | None = scope
        self.lost = False
        self.cancel_requested = False

    def stop(self) -> None:
        """Cancel the work, if it still goes on."""
        if self.scope is not None:
            self.scope.cancel()


class LeaseKeeper:
    """Extends every lease held by this process in one statement, three times in a lease's length."""

    name = "lease keeper"

    def __init__(
        self,
        store: LeaseStore,
        clock: Clock,
        persistence: Persistence,
        *,
        lease_seconds: float,
        metrics: Metrics = SILENT,
    ) -> None:
        self.lease_seconds = lease_seconds
        self._store = store
        self._clock = clock
        self._persistence = persistence
        self._metrics = metrics
        self._holds: dict[tuple[Work, str], Hold] = {}

    def held(self, work: Work) -> list[str]:
        """Return the keys of what is held of *work*."""
        return [key for kind, key in self._holds if kind is work]

    def started(self) -> float:
        """Return the instant to give to `hold` or `renew`: it must be taken before the call that claims or extends."""
        return self._clock.boottime()

    async def hold(
        self, lease: Lease, started: float, scope: trio.CancelScope, task: Callable[[Hold], Awaitable[None]]
    ) -> None:
        """Run *task* in *scope* while *lease* is kept; it is canceled when the lease is lost."""
        hold = self.take(lease, started, scope)
        try:
            await task(hold)
        except LeaseLostError as error:
            log.warning("lease lost", work=lease.work.value, key=lease.key, reason=str(error))
            if not hold.lost:
                self._metrics.lease_lost(lease.work)
        finally:
            self.drop(hold)

    def take(self, lease: Lease, started: float, scope: trio.CancelScope) -> Hold:
        """Keep *lease* until `drop`; *scope* is canceled when it is lost, or an operator asks to cancel the work."""
        hold = Hold(lease, started + self.lease_seconds, scope)
        self._holds[lease.work, lease.key] = hold
        return hold

    def drop(self, hold: Hold) -> None:
        """Keep a lease no longer."""
        del self._holds[hold.lease.work, hold.lease.key]

    def renew(self, hold: Hold, started: float) -> None:
        """Note that a commit begun at *started* has kept the lease."""
        hold.expires = max(hold.expires, started + self.lease_seconds * KEPT_SHARE)

    def remaining(self, hold: Hold) -> float:
        """Return the seconds for which the lease is surely valid."""
        return hold.expires - self._clock.boottime()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Extend what is held until canceled."""
        task_status.started()
        while True:
            await trio.sleep(self.lease_seconds / 3)
            try:
                await self._extend()
            except StoreUnavailableError as error:
                # The leases run on; if the store is back in time, nothing is lost.
                self._persistence.failed(error)

    async def _extend(self) -> None:
        holds = {hold.lease: hold for hold in self._holds.values() if not hold.lost}
        if not holds:
            return
        started = self.started()
        extension = await self._store.extend(list(holds), self.lease_seconds)
        for lease, hold in holds.items():
            if self._holds.get((lease.work, lease.key)) is not hold:
                continue  # given up meanwhile: its scope may be that of other work already
            if lease in extension.lost:
                hold.lost = True
                self._metrics.lease_lost(lease.work)
                hold.stop()
            elif lease in extension.cancel_requested:
                hold.cancel_requested = True
                hold.stop()
            else:
                hold.expires = max(hold.expires, started + self.lease_seconds)
