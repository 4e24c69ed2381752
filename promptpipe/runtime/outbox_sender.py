"""Sends the outbox: one message per recipient at a time, marked before it leaves, recorded when it is answered."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from promptpipe.model.errors import LeaseLostError, StoreUnavailableError, described
from promptpipe.model.leases import Work
from promptpipe.model.messages import Departure, SendOrder, SendRecord, SendResult, Verdict
from promptpipe.model.sending import settle
from promptpipe.runtime.claim_loop import ClaimLoop, Piece
from promptpipe.runtime.together import Together

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptpipe.model.leases import Lease
    from promptpipe.ports.channel import Channel
    from promptpipe.ports.store import OutboxStore
    from promptpipe.runtime.lease_keeper import Hold
    from promptpipe.runtime.worker import Worker

MESSAGES_IN_A_ROW = 50
"""Messages of one lane sent under one lease; then others that wait for a slot have their turn."""
RECORD_GRACE = 2.0
"""Seconds that recording a result may take once the sender is canceled."""

log = structlog.get_logger(__name__)


class OutboxSender:
    """Sends to up to *slots* recipients at a time."""

    name = "outbox sender"

    def __init__(
        self,
        store: OutboxStore,
        channels: Mapping[str, Channel],
        worker: Worker,
        *,
        slots: int,
    ) -> None:
        self._channels = channels
        self._worker = worker
        self._keeper = worker.keeper
        self._persistence = worker.persistence
        # Each for one lane, many in one commit.
        self._mark = Together(partial(store.mark_sending, seconds=worker.keeper.lease_seconds))
        self._commit = Together(store.record)
        self._loop: ClaimLoop[Lease | SendOrder] = ClaimLoop(
            Work.OUTBOX, worker, slots=slots, claim=store.claim, handle=self._handle
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send until stopped and done."""
        await self._loop.run(task_status=task_status)

    def stop(self) -> None:
        """Claim nothing more, and mark no further message of the lanes that are held."""
        self._loop.stop()

    async def _handle(self, piece: Piece[Lease | SendOrder], scope: trio.CancelScope) -> None:
        """Send what waits in a lane. One whose head came with an order was marked by the commit that brought it."""
        limit = 1 if piece.suspect else MESSAGES_IN_A_ROW
        first = piece.item if isinstance(piece.item, SendOrder) else None
        lease = piece.item.lease if isinstance(piece.item, SendOrder) else piece.item
        send_lane = partial(self._send_lane, first=first, limit=limit)
        await self._keeper.hold(lease, piece.claimed_at, scope, send_lane)

    async def _send_lane(self, hold: Hold, *, first: SendOrder | None, limit: int) -> None:
        started = self._keeper.started()
        order = first or await self._persistence.until_committed(partial(self._mark, hold.lease))
        sent = 0
        while order is not None:
            current = order
            self._keeper.renew(hold, started)
            sent += 1
            departure = Departure()
            result = None
            try:
                began = self._keeper.started()
                result = await self._send(current, hold, departure)
                started = self._keeper.started()
                self._worker.metrics.sent(result.verdict, started - began)
                order = await self._record(current, result, last=sent == limit)
            except trio.Cancelled:
                if result is None and not departure.left:
                    result = SendResult(verdict=Verdict.UNSENT, error="canceled before it left", delay=0.0)
                with trio.move_on_after(RECORD_GRACE, shield=True):
                    await self._record_though_canceled(current, result)
                raise

    async def _send(self, order: SendOrder, hold: Hold, departure: Departure) -> SendResult:
        channel = self._channels.get(order.message.channel)
        if channel is None:
            return SendResult(
                verdict=Verdict.PAUSE_CHANNEL, error=f"the channel {order.message.channel} is not configured"
            )
        if self._keeper.remaining(hold) < channel.send_timeout:
            # Suspended since the mark was committed, perhaps: someone else may think that we are gone.
            return SendResult(verdict=Verdict.UNSENT, error="too little of the lease was left", delay=0.0)
        try:
            return await channel.send(order, departure)
        except Exception as error:  # a channel's defect must not become a blind resend
            log.exception("channel failed", message=order.message.id, channel=channel.name)
            return SendResult(verdict=Verdict.DOUBTFUL, error=described(error))

    async def _record(self, order: SendOrder, result: SendResult, *, last: bool) -> SendOrder | None:
        settlement = settle(result, order.attempt, self._worker.random)
        if settlement.verdict is not Verdict.ACCEPTED:
            log.warning(
                "message not sent",
                message=order.message.id,
                attempt=order.attempt,
                verdict=settlement.verdict.value,
                error=settlement.error,
                delay=round(settlement.delay, 1),
            )
        release = last or self._loop.stopping
        record = SendRecord(order, settlement, None if release else self._keeper.lease_seconds)
        return await self._persistence.until_committed(partial(self._commit, record))

    async def _record_though_canceled(self, order: SendOrder, result: SendResult | None) -> None:
        """Record a result if there is one, for what is known is not to become doubt."""
        if result is not None:
            settlement = settle(result, order.attempt, self._worker.random)
            with suppress(LeaseLostError, StoreUnavailableError):
                await self._commit(SendRecord(order, settlement, None))
