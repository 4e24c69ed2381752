"""Deleting what has had its time, in small batches."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from promptpipe.model.ids import first_id
from promptpipe.model.jobs import JobStatus
from promptpipe.ports.maintenance import BATCH

if TYPE_CHECKING:
    from datetime import timedelta

    from promptpipe.ports.maintenance import Position
    from promptpipe.storage.transactions.transaction import Database, Transaction

START = datetime.fromtimestamp(0, UTC)


class MaintenanceTransactions:
    """`ports.maintenance.MaintenanceStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def prune_history(
        self, status: JobStatus, age: timedelta, after: Position | None, *, limit: int = BATCH
    ) -> Position | None:
        """See `MaintenanceStore.prune_history`."""
        if status is JobStatus.DONE:
            return await self._database.write(partial(_prune_done, after=after or "", age=age, limit=limit))
        return await self._prune("prune_ended_jobs", after, age=age, status=status.value, limit=limit)

    async def prune_job_keys(self, after: Position | None, *, limit: int = BATCH) -> Position | None:
        """See `MaintenanceStore.prune_job_keys`."""
        return await self._prune("prune_job_keys", after, limit=limit)

    async def prune_inbound_marks(
        self, age: timedelta, after: Position | None, *, limit: int = BATCH
    ) -> Position | None:
        """See `MaintenanceStore.prune_inbound_marks`."""
        return await self._prune("prune_inbound_marks", after, age=age, limit=limit)

    async def prune_refusals(self, age: timedelta, after: Position | None, *, limit: int = BATCH) -> Position | None:
        """See `MaintenanceStore.prune_refusals`."""
        return await self._prune("prune_refusals", after, age=age, limit=limit)

    async def _prune(self, statement: str, after: Position | None, **values: object) -> Position | None:
        return await self._database.write(lambda tx: _prune(tx, statement, after or START, **values))


async def _prune_done(tx: Transaction, after: Position, age: timedelta, limit: int) -> Position | None:
    return await _prune(tx, "prune_done_jobs", after, age=age, before=first_id(await tx.now() - age), limit=limit)


async def _prune(tx: Transaction, statement: str, after: Position, **values: object) -> Position | None:
    rows = await tx.all(statement, after=after, **values)
    return max((row["position"] for row in rows), default=None)
