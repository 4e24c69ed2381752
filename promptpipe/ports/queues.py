"""Storage of what is said of queues. What `ports.store` says of its methods holds for these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptpipe.model.jobs import QueueStats


class QueueStore(Protocol):
    """What operators say of queues; it holds for all instances at once."""

    async def pause(self, queue: str) -> None:
        """Claim nothing more from a queue. What runs goes on."""
        ...

    async def resume(self, queue: str) -> None:
        """Claim from a paused queue again."""
        ...

    async def limit(self, queue: str, concurrency: int | None) -> None:
        """Let at most so many of its jobs run at the same time, on all instances together; None for any number."""
        ...

    async def stats(self, queue: str | None = None) -> Sequence[QueueStats]:
        """Count what is in the queues that have jobs or of which something was said, by name, or in one of them."""
        ...
