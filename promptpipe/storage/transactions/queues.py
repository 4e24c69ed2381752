"""Queues: what operators have said of them, and what is in them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from promptpipe.model.jobs import QueueStats
from promptpipe.model.leases import Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptpipe.storage.transactions.transaction import Database, Row, Transaction


class QueueTransactions:
    """`ports.queues.QueueStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def pause(self, queue: str) -> None:
        """See `QueueStore.pause`."""
        await self._database.write(partial(_pause, queue=queue, paused=True))

    async def resume(self, queue: str) -> None:
        """See `QueueStore.resume`."""
        await self._database.write(partial(_pause, queue=queue, paused=False))

    async def limit(self, queue: str, concurrency: int | None) -> None:
        """See `QueueStore.limit`."""
        await self._database.write(partial(_limit, queue=queue, concurrency=concurrency))

    async def stats(self, queue: str | None = None) -> Sequence[QueueStats]:
        """See `QueueStore.stats`."""
        return await self._database.read(partial(_stats, queue=queue))


async def _pause(tx: Transaction, queue: str, *, paused: bool) -> None:
    await tx.run("pause_queue", name=queue, paused=paused)
    tx.wake(Work.JOB)


async def _limit(tx: Transaction, queue: str, concurrency: int | None) -> None:
    await tx.run("limit_queue", name=queue, concurrency=concurrency)
    tx.wake(Work.JOB)


async def _stats(tx: Transaction, queue: str | None) -> list[QueueStats]:
    return [_as_stats(row) for row in await tx.all("queue_stats", name=queue)]


def _as_stats(row: Row) -> QueueStats:
    return QueueStats(
        name=row["name"],
        paused=bool(row["paused"]),
        concurrency=row["concurrency"],
        scheduled=row["scheduled"],
        ready=row["ready"],
        running=row["running"],
        failed=row["failed"],
        lag=0.0 if row["lag"] is None else row["lag"].total_seconds(),
    )
