"""Running recovery again, on request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from promptpipe.model.errors import NotFoundError

if TYPE_CHECKING:
    from promptpipe.model.recovery import RecoveryReport
    from promptpipe.ports.store import RecoveryStore
    from promptpipe.recovery import RecoveryManager


class Recoveries:
    """Recovery on request, one at a time, and the reports that are kept."""

    def __init__(self, manager: RecoveryManager, store: RecoveryStore) -> None:
        self._manager = manager
        self._store = store
        self._running = trio.Lock()

    async def run(self) -> RecoveryReport:
        """Recover everything, keep the report, and return it. Whoever asks meanwhile waits for a run of their own."""
        async with self._running:
            return await self._manager.recover_all()

    async def last_report(self) -> RecoveryReport:
        """Return the newest report; raise `NotFoundError` before there is one."""
        report = await self._store.last_report()
        if report is None:
            raise NotFoundError("recovery report", "last", "no recovery has finished yet")
        return report
