"""Running recovery again, on request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from promptpipe.model.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from promptpipe.model.listing import Page, PageRequest
    from promptpipe.model.recovery import RecoveryReport
    from promptpipe.ports.recovery import RecoveryStore


class Recoveries:
    """Recovery on request, one at a time, and the reports that are kept."""

    def __init__(self, recover: Callable[[], Awaitable[RecoveryReport]], store: RecoveryStore) -> None:
        self._recover = recover
        self._store = store
        self._running = trio.Lock()

    async def run(self) -> RecoveryReport:
        """Recover everything, keep the report, and return it. Whoever asks meanwhile waits for a run of their own.

        Raise `PreconditionError` when another instance recovers.
        """
        async with self._running:
            return await self._recover()

    async def last_report(self) -> RecoveryReport:
        """Return the newest report; raise `NotFoundError` before there is one."""
        report = await self._store.last_report()
        if report is None:
            raise NotFoundError("recovery report", "last", "no recovery has finished yet")
        return report

    async def reports(self, page: PageRequest) -> Page[RecoveryReport]:
        """Return the reports that are kept, the newest first."""
        return await self._store.reports(page)
