"""The lock of a connection: one conversation with the server at a time."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from psycopg.pq import PipelineStatus, TransactionStatus
from trio.lowlevel import ParkingLot

if TYPE_CHECKING:
    from types import TracebackType

    from psycopg.pq.abc import PGconn

    from promptpipe.storage.postgres.driver.wire import Wire

logger = logging.getLogger(__name__)


class ConversationLock:
    """First come, first served. Different from `trio.Lock` in three ways.

    It is taken without a checkpoint when it is free, because a block that is left by a cancellation must get it to
    clean up. Any task may release it: an async generator that was forgotten is closed by another one. And when it is
    released, no query may be running any more: if one is (a COPY that was not read to its end, a clean-up that ran into
    its deadline) the connection is closed, so that nobody inherits it.
    """

    __slots__ = ("_held", "_pgconn", "_waiting", "_wire")

    def __init__(self, pgconn: PGconn, wire: Wire) -> None:
        self._pgconn = pgconn
        self._wire = wire
        self._held = False
        self._waiting = ParkingLot()

    def locked(self) -> bool:
        """Return whether a conversation is going on."""
        return self._held

    async def __aenter__(self) -> None:
        if self._held:
            await self._waiting.park()
        self._held = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pgconn = self._pgconn
        if pgconn.transaction_status == TransactionStatus.ACTIVE and pgconn.pipeline_status == PipelineStatus.OFF:
            logger.warning("a query was left running: closing the connection")
            self._wire.close()
        if self._waiting:
            self._waiting.unpark()  # the lock stays held, now by the task that waited longest
        else:
            self._held = False
