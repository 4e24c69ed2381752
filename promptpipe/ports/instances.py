"""Storage of who works on a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptpipe.model.ids import WorkerId
    from promptpipe.model.leases import Instance


class InstanceStore(Protocol):
    """The processes that work on this database."""

    async def beat(self, worker: WorkerId, process: str, *, ready: bool) -> Mapping[WorkerId, Instance]:
        """Give a sign that *worker* lives, in *process*, and whether it takes webhooks; return all others."""
        ...

    async def bury(self, worker: WorkerId, beats: int) -> bool:
        """Strike out *worker* if it has given *beats* signs and no more; what it held is stale then.

        Return whether that was so.
        """
        ...
