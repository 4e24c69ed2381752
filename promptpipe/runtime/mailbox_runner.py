"""Hands participants' events to their flows, one at a time per participant, and commits what those decide."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from promptpipe.model.decisions import Decided
from promptpipe.model.errors import LeaseLostError, VersionConflictError, described
from promptpipe.model.leases import Work
from promptpipe.model.retry import MAILBOX_BACKOFF, MAILBOX_BLOCK_LIMIT
from promptpipe.runtime.claim_loop import ClaimLoop, Piece
from promptpipe.runtime.together import Together

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from promptpipe.model.decisions import Decision, Delivery
    from promptpipe.ports.store import MailboxStore
    from promptpipe.runtime.lease_keeper import Hold
    from promptpipe.runtime.worker import Worker

EVENTS_IN_A_ROW = 50
"""Events of one mailbox handled under one lease; then others that wait for a slot have their turn."""

log = structlog.get_logger(__name__)


class MailboxRunner:
    """Handles events of up to *slots* participants at a time."""

    name = "mailbox runner"

    def __init__(
        self,
        store: MailboxStore,
        decide: Callable[[Delivery], Awaitable[Decision]],
        worker: Worker,
        *,
        slots: int,
    ) -> None:
        self._store = store
        self._decide = decide
        self._worker = worker
        self._keeper = worker.keeper
        self._persistence = worker.persistence
        self._commit = Together(store.decide)
        self._loop: ClaimLoop[Delivery] = ClaimLoop(
            Work.MAILBOX, worker, slots=slots, claim=store.claim, handle=self._handle
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Handle events until stopped and done."""
        await self._loop.run(task_status=task_status)

    def stop(self) -> None:
        """Claim nothing more, and hand out no further event of the mailboxes that are held."""
        self._loop.stop()

    async def _handle(self, piece: Piece[Delivery], scope: trio.CancelScope) -> None:
        limit = 1 if piece.suspect else EVENTS_IN_A_ROW
        converse = partial(self._converse, piece.item, limit=limit)
        await self._keeper.hold(piece.item.lease, piece.claimed_at, scope, converse)

    async def _converse(self, first: Delivery, hold: Hold, *, limit: int) -> None:
        delivery: Delivery | None = first
        handled = 0
        while delivery is not None:
            handled += 1
            delivery = await self._handle_one(delivery, hold, last=handled == limit)

    async def _handle_one(self, delivery: Delivery, hold: Hold, *, last: bool) -> Delivery | None:
        """Handle one event and return the next of the same mailbox; None when the mailbox was released."""
        began = self._worker.clock.boottime()
        try:
            decision = await self._decided(delivery)
            following = await self._persistence.until_committed(
                partial(self._apply, delivery, decision, hold, last=last)
            )
        except LeaseLostError:
            raise
        except VersionConflictError as conflict:
            log.warning("flow state changed meanwhile", participant=delivery.participant.id, reason=str(conflict))
            await self._persistence.until_committed(partial(self._store.give_back, delivery.lease))
        except Exception as error:  # noqa: BLE001  whatever handling an event raises concerns its conversation alone
            await self._retry(delivery, error, self._worker.clock.boottime() - began)
        else:
            self._worker.metrics.event_ended("handled", self._age(delivery))
            return following
        return None

    async def _decided(self, delivery: Delivery) -> Decision:
        with trio.move_on_after(max(0.0, MAILBOX_BLOCK_LIMIT - delivery.event.blocked)):
            return await self._decide(delivery)
        raise trio.TooSlowError

    def _age(self, delivery: Delivery) -> float:
        return (self._worker.clock.now() - delivery.event.created_at).total_seconds()

    async def _apply(self, delivery: Delivery, decision: Decision, hold: Hold, *, last: bool) -> Delivery | None:
        started = self._keeper.started()
        release = last or self._loop.stopping
        following = await self._commit(Decided(delivery, decision, None if release else self._keeper.lease_seconds))
        self._keeper.renew(hold, started)
        return following

    async def _retry(self, delivery: Delivery, error: Exception, took: float) -> None:
        event = delivery.event
        delay = MAILBOX_BACKOFF.delay(event.attempt, self._worker.random)
        aside = await self._persistence.until_committed(
            partial(
                self._store.retry,
                delivery.lease,
                event.id,
                error=described(error),
                delay=delay,
                blocked=took + delay,
                limit=MAILBOX_BLOCK_LIMIT,
            )
        )
        self._worker.metrics.event_ended("aside" if aside else "retried", self._age(delivery))
        log.warning(
            "event set aside" if aside else "event failed",
            participant=delivery.participant.id,
            event_id=event.id,
            kind=event.event.kind,
            attempt=event.attempt,
            exc_info=error,
        )
