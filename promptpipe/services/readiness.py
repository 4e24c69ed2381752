"""Whether this service can take webhooks: what `/readyz` says, and when the waits for statuses begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from promptpipe.model.errors import StoreUnavailableError

if TYPE_CHECKING:
    from promptpipe.ports.store import Store

PROBE_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Readiness:
    """Ready once recovery's fast part is done and while the store commits; never again once draining.

    A message in doubt waits for a status that only a ready service can receive, so every return to readiness
    starts the waits anew.
    """

    name = "readiness"

    def __init__(self) -> None:
        self.obstacle: str | None = "starting"
        self.changed = trio.Event()
        """Set, and replaced, when the obstacle changes."""
        self._failed = trio.Event()

    @property
    def ready(self) -> bool:
        """Whether webhooks can be taken."""
        return self.obstacle is None

    def store_failed(self) -> None:
        """Note that the store could not commit; `run` finds out when it can again."""
        if self.ready:
            self._change("the database is not available")
        self._failed.set()

    def drain(self) -> None:
        """Be ready no more."""
        self._change("draining")

    async def run(self, store: Store, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Become ready, and again after each failure of the store, until canceled."""
        while True:
            await self._wait_committed(store)
            self._failed = trio.Event()
            if self.obstacle != "draining":
                self._change(None)
                log.info("ready")
            task_status.started()
            await self._failed.wait()

    def _change(self, obstacle: str | None) -> None:
        self.obstacle = obstacle
        changed, self.changed = self.changed, trio.Event()
        changed.set()

    async def _wait_committed(self, store: Store) -> None:
        while True:
            try:
                await store.probe()
                await store.recovery.restart_doubts()
            except StoreUnavailableError:
                await trio.sleep(PROBE_SECONDS)
            else:
                return
