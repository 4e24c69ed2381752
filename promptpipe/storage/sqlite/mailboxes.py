"""Mailboxes on SQLite: one holder at a time hands each event to its flow, and applies what that decided."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from promptpipe.model.decisions import Delivery
from promptpipe.model.errors import FlowError, LeaseLostError, NotFoundError
from promptpipe.model.events import Replied, StoredEvent, decoded
from promptpipe.model.ids import EventId, ParticipantId
from promptpipe.model.leases import Claimed, Work
from promptpipe.storage.sqlite import decisions, lanes, mailbox_events, participants
from promptpipe.storage.sqlite.values import from_json, instant, seconds, span

if TYPE_CHECKING:
    import sqlite3

    from promptpipe.model.decisions import Decision
    from promptpipe.model.leases import Claim, Lease
    from promptpipe.storage.sqlite.database import Database
    from promptpipe.storage.sqlite.transaction import Transaction

OUT_OF_ATTEMPTS = "out of attempts: its worker vanished in the last that was left"


class SqliteMailboxes:
    """`ports.store.MailboxStore` on SQLite."""

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
                delay=span(delay),
                blocked=span(blocked),
                limit=span(limit),
            )
        )

    async def give_back(self, lease: Lease) -> None:
        """See `MailboxStore.give_back`."""
        await self._database.write(partial(_give_back, lease=lease))


def _claim(tx: Transaction, request: Claim) -> Claimed[Delivery]:
    leases, suspect = lanes.claim(tx, Work.MAILBOX, request)
    deliveries = [_hand_out(tx, lease) for lease in leases]
    return Claimed(
        items=[delivery for delivery in deliveries if delivery is not None],
        suspect=None if suspect is None else _hand_out(tx, suspect),
        next_due_in=lanes.next_due_in(tx, Work.MAILBOX),
    )


def _hand_out(tx: Transaction, lease: Lease) -> Delivery | None:
    """Hand out the head of a held mailbox, setting aside what cannot be; release an empty mailbox."""
    participant_id = ParticipantId(lease.key)
    while (head := mailbox_events.head(tx, participant_id)) is not None:
        if head["attempt"] >= head["max_attempts"]:
            mailbox_events.set_aside(tx, head, OUT_OF_ATTEMPTS)
            continue
        try:
            event = decoded(head["kind"], from_json(head["payload"]))
            participant = participants.get(tx, participant_id)
            states = participants.flow_states(tx, participant_id)
        except (FlowError, NotFoundError, ValueError) as error:
            mailbox_events.set_aside(tx, head, str(error))
            continue
        tx.run("hand_out_event", id=head["id"])
        stored = StoredEvent(
            id=EventId(head["id"]),
            attempt=head["attempt"] + 1,
            blocked=seconds(head["blocked"]),
            created_at=instant(head["created_at"]),
            event=event,
        )
        return Delivery(
            lease=lease,
            event=stored,
            participant=participant,
            states=states,
            hooks=participants.hooks(tx, participant_id),
        )
    lanes.release(tx, lease, None)
    return None


def _decide(tx: Transaction, delivery: Delivery, decision: Decision, next_within: float | None) -> Delivery | None:
    lease, event = delivery.lease, delivery.event
    lanes.check(tx, lease)
    if not tx.run("delete_event", id=event.id):
        raise LeaseLostError(f"the event {event.id} is no longer in its mailbox")
    decisions.apply(tx, delivery.participant.id, decision)
    if isinstance(event.event, Replied):
        tx.run("mark_response_processed", id=event.event.response_id, now=tx.now)
    if next_within is None:
        _release(tx, lease, tx.now)
        return None
    lanes.keep(tx, lease, next_within, orderly=True)
    return _hand_out(tx, lease)


def _retry(tx: Transaction, lease: Lease, event_id: EventId, error: str, delay: int, blocked: int, limit: int) -> bool:
    lanes.check(tx, lease)
    head = _checked_head(tx, lease, event_id)
    hopeless: bool = head["attempt"] >= head["max_attempts"] or head["blocked"] + blocked >= limit
    if hopeless:
        mailbox_events.set_aside(tx, head, error)
    else:
        tx.run(
            "note_event_error",
            id=event_id,
            blocked=blocked,
            last_error=mailbox_events.bounded(error),
        )
    _release(tx, lease, tx.now if hopeless else tx.now + delay)
    return hopeless


def _give_back(tx: Transaction, lease: Lease) -> None:
    lanes.check(tx, lease)
    tx.run("give_event_back", participant_id=lease.key)
    _release(tx, lease, tx.now)


def _checked_head(tx: Transaction, lease: Lease, event_id: EventId) -> sqlite3.Row:
    head = mailbox_events.head(tx, ParticipantId(lease.key))
    if head is None or head["id"] != event_id:
        raise LeaseLostError(f"the event {event_id} is no longer the head of its mailbox")
    return head


def _release(tx: Transaction, lease: Lease, due_at: int) -> None:
    """Release a mailbox, due at *due_at* if there is anything in it."""
    empty = mailbox_events.head(tx, ParticipantId(lease.key)) is None
    lanes.release(tx, lease, None if empty else due_at)
