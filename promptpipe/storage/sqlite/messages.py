"""The rows of the outbox: enqueuing, and moving messages and their attempts along the lattice."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from promptpipe.model.errors import NotFoundError
from promptpipe.model.events import MessageFailed, MessageSent
from promptpipe.model.ids import MessageId, ParticipantId
from promptpipe.model.leases import Work
from promptpipe.model.messages import (
    AttemptState,
    InDoubtPolicy,
    MessageClass,
    MessageStatus,
    OutboxMessage,
    Text,
    advanced,
)
from promptpipe.model.participants import Address, AddressKind, ParticipantStatus
from promptpipe.model.retry import DEFAULT_MAX_ATTEMPTS
from promptpipe.model.text import shortened, storable
from promptpipe.storage.sqlite import lanes, mailbox_events, participants
from promptpipe.storage.sqlite.values import (
    from_json,
    instant,
    maybe_instant,
    maybe_micros,
    span,
    to_json,
)

if TYPE_CHECKING:
    import sqlite3

    from promptpipe.model.messages import InDoubtRules, NewMessage
    from promptpipe.storage.sqlite.transaction import Transaction

DEDUPE_DAYS = timedelta(days=30)
MAX_ERROR_TEXT = 2000


def lane_key(participant_id: str, channel: str, message_class: MessageClass) -> str:
    """Return the key of the lane in which messages of a class reach a participant on a channel."""
    return f"{participant_id}/{channel}/{message_class.value}"


@dataclass(frozen=True, slots=True)
class Placed:
    """A message with its address, and its place in its lane; without a place, it is canceled from the start."""

    new: NewMessage
    address: Address
    lane_key: str
    seq: int | None


def enqueue(tx: Transaction, new: NewMessage) -> tuple[OutboxMessage, bool]:
    """See `OutboxStore.enqueue`."""
    if new.dedupe_key is not None:
        existing = tx.one("message_by_key", dedupe_key=new.dedupe_key)
        if existing is not None:
            if existing["created_at"] > tx.now - span(DEDUPE_DAYS.total_seconds()):
                return as_message(existing), False
            tx.run("forget_key", id=existing["id"])
    insert(tx, place(tx, new))
    return as_message(row(tx, new.id)), True


def place(tx: Transaction, new: NewMessage) -> Placed:
    """Take a place for a message in its recipient's lane; none for someone who has withdrawn.

    Raise `NotFoundError` when there is no such participant, or none with an address on the channel. `insert` must
    follow in the same transaction; between the two, what comes after lanes in the order of locks may be locked.
    """
    person = participants.get(tx, new.participant_id)
    there = [address for address in person.addresses if address.channel == new.channel]
    if not there:
        raise NotFoundError(f"{new.channel} address of participant", new.participant_id)
    # A phone number before a user id: every account can be reached by it.
    address = min(there, key=lambda item: item.kind is AddressKind.USER_ID)
    key = lane_key(new.participant_id, new.channel, new.message_class)
    if person.status is ParticipantStatus.WITHDRAWN:
        return Placed(new, address, key, None)
    return Placed(new, address, key, lanes.append(tx, Work.OUTBOX, key, new.message_class.priority))


def insert(tx: Transaction, placed: Placed) -> None:
    """Put a message into the place that was taken for it."""
    new = placed.new
    status = MessageStatus.CANCELED if placed.seq is None else MessageStatus.QUEUED
    tx.run(
        "insert_message",
        id=new.id,
        participant_id=new.participant_id,
        channel=new.channel,
        recipient=placed.address.value,
        recipient_kind=placed.address.kind.value,
        **{"class": new.message_class.value},
        lane_key=placed.lane_key,
        seq=placed.seq,
        kind="text",
        body=to_json({"body": new.content.body}),
        status=status.value,
        max_attempts=DEFAULT_MAX_ATTEMPTS,
        dedupe_key=new.dedupe_key,
        flow_type=new.flow_type,
        expires_at=maybe_micros(new.expires_at),
        in_doubt_policy=None if new.in_doubt_policy is None else new.in_doubt_policy.value,
        now=tx.now,
    )


def row(tx: Transaction, message_id: str) -> sqlite3.Row:
    """Return a message's row; raise `NotFoundError`."""
    found = tx.one("message", id=message_id)
    if found is None:
        raise NotFoundError("message", message_id)
    return found


def advance(
    tx: Transaction,
    message: sqlite3.Row,
    attempt: int,
    state: AttemptState,
    *,
    provider_id: str | None = None,
    error: str | None = None,
) -> None:
    """Move an attempt, and its message with it, forward to *state*; late and repeated news change nothing.

    Whoever calls it may hold the lane or not: a status needs no lease.
    """
    known = tx.the("attempt", message_id=message["id"], n=attempt)
    merged = AttemptState(known["state"]).merged(state)
    set_attempt(tx, message["id"], attempt, merged, provider_id=provider_id, error=error)
    states = [AttemptState(item["state"]) for item in tx.all("attempt_states", message_id=message["id"])]
    status = advanced(MessageStatus(message["status"]), states)
    set_status(tx, message, status, provider_id=provider_id, error=error)


def set_status(
    tx: Transaction,
    message: sqlite3.Row,
    status: MessageStatus,
    *,
    provider_id: str | None = None,
    error: str | None = None,
) -> None:
    """Give a message its status, take it out of its lane when that is settled, and tell the flow that waits."""
    tx.run(
        "set_message_status",
        id=message["id"],
        status=status.value,
        provider_id=provider_id,
        error=bounded(error),
        now=tx.now,
    )
    if status.settled and (message["seq"], message["not_before"]) != (None, None):
        leave_lane(tx, message)
    if message["flow_type"] is None:
        return
    event: MessageSent | MessageFailed
    if status.reached_provider and message["sent_at"] is None:
        event = MessageSent(
            flow_type=message["flow_type"], message_id=MessageId(message["id"]), sent_at=instant(tx.now)
        )
    elif status.rank >= MessageStatus.SENT.rank and not status.reached_provider and message["failed_at"] is None:
        event = MessageFailed(
            flow_type=message["flow_type"], message_id=MessageId(message["id"]), error=error or status.value
        )
    else:
        return
    mailbox_events.append(tx, ParticipantId(message["participant_id"]), event)


def leave_lane(tx: Transaction, message: sqlite3.Row) -> None:
    """Take a message out of its lane; when nobody holds that, it is due for the next one."""
    tx.run("leave_lane", id=message["id"])
    key = message["lane_key"]
    tx.run("set_lane_due", kind=Work.OUTBOX.value, key=key, due_at=head_due(tx, key))
    tx.wake(Work.OUTBOX)


def put_back(tx: Transaction, message: sqlite3.Row) -> None:
    """Queue a message in doubt again: in its place, or at the tail when it had left its lane."""
    tx.run("queue_again", id=message["id"], uncounted=0, error=message["last_error"], now=tx.now)
    key, message_class = message["lane_key"], MessageClass(message["class"])
    if message["seq"] is None:
        seq = lanes.append(tx, Work.OUTBOX, key, message_class.priority)
        tx.run("enter_lane", id=message["id"], seq=seq, now=tx.now)
    tx.run("set_lane_due", kind=Work.OUTBOX.value, key=key, due_at=tx.now)
    tx.wake(Work.OUTBOX)


def head_due(tx: Transaction, key: str) -> int | None:
    """Return when the head of a lane is due, its pace aside; None when the lane is empty."""
    head = tx.one("head_message", lane_key=key)
    if head is None:
        return None
    in_doubt = head["status"] == MessageStatus.IN_DOUBT.value
    due: int = head["doubt_until"] if in_doubt else tx.now
    return due


def doubt(tx: Transaction, message: sqlite3.Row, attempt: int, rules: InDoubtRules, error: str | None = None) -> None:
    """Record that nobody knows what became of an attempt, from now on."""
    set_attempt(tx, message["id"], attempt, AttemptState.IN_DOUBT, error=error)
    tx.run(
        "doubt",
        id=message["id"],
        doubt_from=tx.now,
        doubt_until=tx.now + span(rules.wait),
        error=bounded(error),
        now=tx.now,
    )


def doubt_if_sending(tx: Transaction, key: str, rules: InDoubtRules, error: str) -> int:
    """Put the head of a lane in doubt if it is on the wire; return how many messages that were."""
    head = tx.one("head_message", lane_key=key)
    if head is None or head["status"] != MessageStatus.SENDING.value:
        return 0
    doubt(tx, head, head["attempts"], rules, error)
    return 1


def set_attempt(
    tx: Transaction,
    message_id: str,
    attempt: int,
    state: AttemptState,
    *,
    provider_id: str | None = None,
    error: str | None = None,
) -> None:
    """Record where an attempt stands, without regard to its message."""
    tx.run(
        "set_attempt",
        message_id=message_id,
        n=attempt,
        state=state.value,
        provider_id=provider_id,
        error=bounded(error),
        now=tx.now,
    )


def join_parked(tx: Transaction, channel: str, provider_id: str, message_id: MessageId, attempt: int) -> None:
    """Apply the statuses that came before we knew which message *provider_id* is."""
    parked = tx.all("take_parked_receipts", channel=channel, provider_id=provider_id)
    for receipt_id in sorted(item["receipt_id"] for item in parked):
        receipt = tx.the("receipt", id=receipt_id)
        tx.run("join_receipt", id=receipt_id, message_id=message_id, attempt=attempt)
        state = AttemptState(receipt["status"])
        advance(tx, row(tx, message_id), attempt, state, provider_id=provider_id, error=receipt["error"])


def bounded(error: str | None) -> str | None:
    """Return an error's text as it can be stored."""
    return None if error is None else shortened(storable(error), MAX_ERROR_TEXT)


def as_message(row_: sqlite3.Row) -> OutboxMessage:
    """Return the message in a row of `outbox_messages`."""
    policy = row_["in_doubt_policy"]
    return OutboxMessage(
        id=MessageId(row_["id"]),
        participant_id=ParticipantId(row_["participant_id"]),
        channel=row_["channel"],
        recipient=Address(row_["channel"], AddressKind(row_["recipient_kind"]), row_["recipient"]),
        content=Text(str(from_json(row_["body"])["body"])),
        message_class=MessageClass(row_["class"]),
        status=MessageStatus(row_["status"]),
        attempts=row_["attempts"],
        created_at=instant(row_["created_at"]),
        dedupe_key=row_["dedupe_key"],
        flow_type=row_["flow_type"],
        expires_at=maybe_instant(row_["expires_at"]),
        in_doubt_policy=None if policy is None else InDoubtPolicy(policy),
        provider_message_id=row_["provider_message_id"],
        last_error=row_["last_error"],
        sent_at=maybe_instant(row_["sent_at"]),
        delivered_at=maybe_instant(row_["delivered_at"]),
        read_at=maybe_instant(row_["read_at"]),
    )
