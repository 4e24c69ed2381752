"""Deleting what nobody needs any more. What `ports.store` says of its methods holds for these.

Each call deletes one batch of *limit* rows at most, the oldest first, and returns how far it came: given as *after* the
next time, that spares the database stepping over what is gone. It returns None when there was nothing left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from datetime import timedelta

    from promptpipe.model.jobs import JobStatus

BATCH = 500
"""Rows in one transaction: on SQLite nobody else writes meanwhile."""

Position: TypeAlias = object
"""How far pruning has come; of no meaning to anybody but the store."""


class MaintenanceStore(Protocol):
    """What has had its time."""

    async def prune_history(
        self, status: JobStatus, age: timedelta, after: Position | None, *, limit: int = BATCH
    ) -> Position | None:
        """Delete jobs that ended with *status* longer ago than *age*, and their errors."""
        ...

    async def prune_job_keys(self, after: Position | None, *, limit: int = BATCH) -> Position | None:
        """Delete jobs' dedupe keys whose period is over."""
        ...

    async def prune_inbound_marks(
        self, age: timedelta, after: Position | None, *, limit: int = BATCH
    ) -> Position | None:
        """Delete marks of what webhooks brought longer ago than *age*: after that it may have an effect again."""
        ...

    async def prune_refusals(self, age: timedelta, after: Position | None, *, limit: int = BATCH) -> Position | None:
        """Delete reasons why orders were refused longer ago than *age*: nobody waits to hear them any more."""
        ...
