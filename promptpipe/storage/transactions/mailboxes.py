"""Mailboxes: one holder at a time hands each event to its flow, and applies what that decided."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from promptpipe.model.decisions import Delivery
from promptpipe.model.errors import FlowError, LeaseLostError, NotFoundError
from promptpipe.model.events import Replied, StoredEvent, decoded
from promptpipe.model.ids import EventId, ParticipantId
from promptpipe.model.leases import Claimed, Work
from promptpipe.storage.transactions import decisions, lanes, mailbox_events, participants
from promptpipe.storage.transactions.values import from_json, span

if TYPE_CHECKING:
    from promptpipe.model.decisions import Decision
    from promptpipe.model.leases import Claim, Lease
    from promptpipe.storage.transactions.transaction import Database, Row, Transaction

OUT_OF_ATTEMPTS = "out of attempts: its worker vanished in the last that was left"


class MailboxTransactions:
    """`ports.store.MailboxStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, claim: Claim) -> Claimed[Delivery]:
        """See `MailboxStore.claim`."""
        return await self._database.write(partial(_claim, request=claim))

    async def decide(self, delivery: Delivery, decision: Decision, *, next_within: float | None) -> Delivery | None:
        """See `MailboxStore.decide`."""
        return await self._database.write(
            partial(_decide, delivery=delivery, decision=decision, next_within=next_within)
        )

    async def retry(
        self, lease: Lease, event_id: EventId, *, error: str, delay: float, blocked: float, limit: float
    ) -> bool:
        """See `MailboxStore.retry`."""
        return await self._database.write(
            partial(
                _retry,
                lease=lease,
                event_id=event_id,
                error=error,
                delay=delay,
                blocked=blocked,
                limit=limit,
            )
        )

    async def give_back(self, lease: Lease) -> None:
        """See `MailboxStore.give_back`."""
        await self._database.write(partial(_give_back, lease=lease))


async def _claim(tx: Transaction, request: Claim) -> Claimed[Delivery]:
    leases, suspect = await lanes.claim(tx, Work.MAILBOX, request)
    deliveries = [await _hand_out(tx, lease) for lease in leases]
    return Claimed(
        items=[delivery for delivery in deliveries if delivery is not None],
        suspect=None if suspect is None else await _hand_out(tx, suspect),
        next_due_in=await lanes.next_due_in(tx, Work.MAILBOX),
    )


async def _hand_out(tx: Transaction, lease: Lease) -> Delivery | None:
    """Hand out the head of a held mailbox, setting aside what cannot be; release an empty mailbox."""
    participant_id = ParticipantId(lease.key)
    while (head := await mailbox_events.head(tx, participant_id)) is not None:
        if head["attempt"] >= head["max_attempts"]:
            await mailbox_events.set_aside(tx, head, OUT_OF_ATTEMPTS)
            continue
        try:
            event = decoded(head["kind"], from_json(head["payload"]))
            participant = await participants.get(tx, participant_id)
            states = await participants.flow_states(tx, participant_id)
        except (FlowError, NotFoundError, ValueError) as error:
            await mailbox_events.set_aside(tx, head, str(error))
            continue
        await tx.run("hand_out_event", id=head["id"])
        stored = StoredEvent(
            id=EventId(head["id"]),
            attempt=head["attempt"] + 1,
            blocked=head["blocked"].total_seconds(),
            created_at=head["created_at"],
            event=event,
        )
        return Delivery(
            lease=lease,
            event=stored,
            participant=participant,
            states=states,
            hooks=await participants.hooks(tx, participant_id),
        )
    await lanes.release(tx, lease, None)
    return None


async def _decide(
    tx: Transaction, delivery: Delivery, decision: Decision, next_within: float | None
) -> Delivery | None:
    lease, event = delivery.lease, delivery.event
    await lanes.check(tx, lease)
    # Without its event the decision is void. Under a lease that holds, the event is gone because it was removed
    # meanwhile (a timer canceled), or because this very call was committed before and its answer lost: go on.
    if await tx.count("delete_event", id=event.id):
        await decisions.apply(tx, delivery.participant.id, decision)
        if isinstance(event.event, Replied):
            await tx.run("mark_response_processed", id=event.event.response_id)
    if next_within is None:
        await _release(tx, lease, 0.0)
        return None
    await lanes.keep(tx, [lease], next_within, orderly=True)
    return await _hand_out(tx, lease)


async def _retry(
    tx: Transaction, lease: Lease, event_id: EventId, error: str, delay: float, blocked: float, limit: float
) -> bool:
    await lanes.check(tx, lease)
    head = await _checked_head(tx, lease, event_id)
    hopeless: bool = head["attempt"] >= head["max_attempts"] or head["blocked"].total_seconds() + blocked >= limit
    if hopeless:
        await mailbox_events.set_aside(tx, head, error)
    else:
        await tx.run("note_event_error", id=event_id, blocked=span(blocked), last_error=mailbox_events.bounded(error))
    await _release(tx, lease, 0.0 if hopeless else delay)
    return hopeless


async def _give_back(tx: Transaction, lease: Lease) -> None:
    await lanes.check(tx, lease)
    await tx.run("give_event_back", participant_id=lease.key)
    await _release(tx, lease, 0.0)


async def _checked_head(tx: Transaction, lease: Lease, event_id: EventId) -> Row:
    head = await mailbox_events.head(tx, ParticipantId(lease.key))
    if head is None or head["id"] != event_id:
        raise LeaseLostError(f"the event {event_id} is no longer the head of its mailbox")
    return head


async def _release(tx: Transaction, lease: Lease, delay: float) -> None:
    """Release a mailbox, due in *delay* seconds if there is anything in it."""
    empty = await mailbox_events.head(tx, ParticipantId(lease.key)) is None
    await lanes.release(tx, lease, None if empty else await tx.now() + span(delay))
