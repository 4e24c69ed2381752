"""Hands participants' events to their flows, one at a time per participant, and commits what those decide."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from promptpipe.model.decisions import Decided, in_a_row
from promptpipe.model.errors import LeaseLostError, VersionConflictError, described
from promptpipe.model.leases import Work
from promptpipe.model.retry import MAILBOX_BACKOFF, MAILBOX_BLOCK_LIMIT
from promptpipe.runtime.claim_loop import ClaimLoop, Piece
from promptpipe.runtime.together import Together

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from promptpipe.model.decisions import Decision, Delivery
    from promptpipe.model.events import StoredEvent
    from promptpipe.ports.store import MailboxStore
    from promptpipe.runtime.lease_keeper import Hold
    from promptpipe.runtime.worker import Worker

EVENTS_IN_A_ROW = 50
"""Events of one mailbox handled under one lease; then others that wait for a slot have their turn."""

EVENTS_AT_ONCE = 25
"""Events of one mailbox handled in one commit, as far as that takes no time."""

QUICK_SECONDS = 0.1
"""For how long what was decided about an event waits, at most, for those behind it to be committed with it."""

log = structlog.get_logger(__name__)


class MailboxRunner:
    """Handles events of up to *slots* participants at a time.

    Where flows are *quick*, events that wait behind each other are handled in one commit.
    """

    name = "mailbox runner"

    def __init__(
        self,
        store: MailboxStore,
        decide: Callable[[Delivery], Awaitable[Decision]],
        worker: Worker,
        *,
        slots: int,
        quick: bool = True,
    ) -> None:
        self._store = store
        self._decide = decide
        self._worker = worker
        self._keeper = worker.keeper
        self._persistence = worker.persistence
        self._commit = Together(store.decide)
        self._loop: ClaimLoop[Delivery] = ClaimLoop(
            Work.MAILBOX,
            worker,
            slots=slots,
            claim=store.claim,
            handle=self._handle,
            depth=EVENTS_AT_ONCE if quick else 1,
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
        while delivery is not None:
            delivery, handled = await self._handle_some(delivery, hold, most=limit)
            limit -= handled

    async def _handle_some(self, delivery: Delivery, hold: Hold, *, most: int) -> tuple[Delivery | None, int]:
        """Handle an event, and some of those behind it; return the next of the same mailbox, and how many these were.

        There is no next one when the mailbox was released.
        """
        began = self._worker.clock.boottime()
        try:
            alone = Decided(delivery, await self._decided(delivery), None)
            quick = self._worker.clock.boottime() - began <= QUICK_SECONDS and not self._loop.stopping
            joined = await self._joined(alone, most) if quick else alone
            return await self._apply_either(joined, alone, hold, most)
        except LeaseLostError:
            raise
        except VersionConflictError as conflict:
            log.warning("flow state changed meanwhile", participant=delivery.participant.id, reason=str(conflict))
            await self._persistence.until_committed(partial(self._store.give_back, delivery.lease))
        except Exception as error:  # noqa: BLE001  whatever handling an event raises concerns its conversation alone
            await self._retry(delivery, error, self._worker.clock.boottime() - began)
        return None, 0

    async def _joined(self, first: Decided, most: int) -> Decided:
        """Return what was decided about the *first* event with what those behind it change, if that takes no time.

        What is not quick, or fails, is handled again once it is the first.
        """
        decisions, also, standing = [first.decision], [], first.decision
        following = first.delivery.after(first.decision)
        with trio.move_on_after(QUICK_SECONDS), suppress(Exception):
            while following is not None and len(decisions) < most:
                decision = await self._decide(following)
                if not standing.goes_with(decision):
                    break
                standing = standing if decision.state is None else decision
                decisions.append(decision)
                also.append(following.event)
                following = following.after(decision)
        return replace(first, decision=in_a_row(decisions), also=tuple(also))

    async def _apply_either(
        self, joined: Decided, alone: Decided, hold: Hold, most: int
    ) -> tuple[Delivery | None, int]:
        """Commit what was decided together, or if that cannot be, what was decided about the first event."""
        if joined.also:
            try:
                return await self._apply(joined, hold, most), len(joined.events)
            except LeaseLostError:
                raise
            except Exception as error:  # noqa: BLE001  whichever was the reason is met again
                log.debug("events not handled together", reason=described(error))
        return await self._apply(alone, hold, most), 1

    async def _decided(self, delivery: Delivery) -> Decision:
        with trio.move_on_after(max(0.0, MAILBOX_BLOCK_LIMIT - delivery.event.blocked)):
            return await self._decide(delivery)
        raise trio.TooSlowError

    def _age(self, event: StoredEvent) -> float:
        return (self._worker.clock.now() - event.created_at).total_seconds()

    async def _apply(self, decided: Decided, hold: Hold, most: int) -> Delivery | None:
        """Commit what was decided, and return the next event unless *most* have been handled."""

        async def commit() -> Delivery | None:
            started = self._keeper.started()
            release = len(decided.events) == most or self._loop.stopping
            following = await self._commit(
                replace(decided, next_within=None if release else self._keeper.lease_seconds)
            )
            self._keeper.renew(hold, started)
            return following

        following = await self._persistence.until_committed(commit)
        for event in decided.events:
            self._worker.metrics.event_ended("handled", self._age(event))
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
        self._worker.metrics.event_ended("aside" if aside else "retried", self._age(event))
        log.warning(
            "event set aside" if aside else "event failed",
            participant=delivery.participant.id,
            event_id=event.id,
            kind=event.event.kind,
            attempt=event.attempt,
            exc_info=error,
        )
