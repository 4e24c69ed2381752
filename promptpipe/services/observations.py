"""What only the database knows of how the service does: asked for now and then, however often somebody looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from promptpipe.model.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptpipe.model.jobs import QueueStats
    from promptpipe.ports.store import Store

FRESH_SECONDS = 5.0
"""For how long an answer is good enough."""
SHARE = 10
"""An answer stays good for so many times as long as it took: looking takes at most that share of anything."""
LOOK_SECONDS = 5.0
"""How long the database may take to answer; Prometheus waits for ten."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What is in the queues, how many messages are in doubt, and how many events aside; None where nothing was said."""

    queues: Sequence[QueueStats] | None = None
    in_doubt: int | None = None
    aside: int | None = None


class Observations:
    """Asks *store* one thing at a time, and remembers the answers."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._latest = Observation()
        self._fresh_until = float("-inf")
        self._lock = trio.Lock()

    async def latest(self) -> Observation:
        """Return what was found within the last few seconds, or is found now."""
        async with self._lock:
            began = trio.current_time()
            if began < self._fresh_until:
                return self._latest
            self._latest = Observation()
            with trio.move_on_after(LOOK_SECONDS):
                self._latest = await self._look()
            took = trio.current_time() - began
            self._fresh_until = trio.current_time() + max(FRESH_SECONDS, SHARE * took)
            return self._latest

    async def _look(self) -> Observation:
        try:
            return Observation(
                await self._store.queues.stats(),
                await self._store.outbox.count_in_doubt(),
                await self._store.aside.count(),
            )
        except StoreUnavailableError:
            return Observation()
