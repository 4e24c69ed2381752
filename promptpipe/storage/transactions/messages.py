"""The rows of the outbox: enqueuing, and moving messages and their attempts along the lattice."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from promptpipe.model.errors import NotFoundError, PreconditionError
from promptpipe.model.events import MessageFailed, MessageSent
from promptpipe.model.ids import MessageId, ParticipantId
from promptpipe.model.leases import Work
from promptpipe.model.messages import (
    AttemptState,
    InDoubtPolicy,
    MessageClass,
    MessageStatus,
    OutboxMessage,
    advanced,
    content_data,
    content_in,
    content_kind,
)
from promptpipe.model.participants import Address, AddressKind, ParticipantStatus
from promptpipe.model.retry import DEFAULT_MAX_ATTEMPTS
from promptpipe.model.text import shortened, storable
from promptpipe.storage.transactions import lanes, mailbox_events, participants
from promptpipe.storage.transactions.values import from_json, micros, span, to_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from promptpipe.model.messages import InDoubtRules, NewMessage
    from promptpipe.model.participants import Participant
    from promptpipe.storage.transactions.transaction import Row, Transaction

DEDUPE_HOLD = timedelta(days=30)
MAX_ERROR_TEXT = 2000
CANCELED_BY_OPERATOR = "canceled by an operator"

RETRIED = {status.value for status in (MessageStatus.FAILED, MessageStatus.EXPIRED, MessageStatus.CANCELED)}
"""What an operator can have sent again."""
ARRIVED = {AttemptState.SENT, AttemptState.DELIVERED, AttemptState.READ}
"""What a late status may have made of an attempt at a message that was canceled or expired meanwhile."""


def lane_key(participant_id: str, channel: str, message_class: MessageClass) -> str:
    """Return the key of the lane in which messages of a class reach a participant on a channel."""
    return f"{participant_id}/{channel}/{message_class.value}"


def lane_of(new: NewMessage) -> str:
    """Return the key of the lane that a message enters."""
    return lane_key(new.participant_id, new.channel, new.message_class)


def lanes_to(participant_id: str, channel: str) -> dict[str, MessageClass]:
    """Return the classes of messages to a participant on a channel, by the keys of their lanes."""
    return {lane_key(participant_id, channel, message_class): message_class for message_class in MessageClass}


def provider_name(channel: str, provider_id: str) -> str:
    """Return the name under which everybody locks a provider's message id before looking for it."""
    return f"{channel}/{provider_id}"


def recipient_of_lane(key: str) -> ParticipantId:
    """Return the participant whom the messages of a lane reach."""
    return ParticipantId(key.partition("/")[0])


class Placed(NamedTuple):
    """A message with its address, and its place in its lane; without a place, it is canceled from the start."""

    new: NewMessage
    address: Address
    seq: int | None


async def enqueue(tx: Transaction, new: NewMessage) -> tuple[OutboxMessage, bool]:
    """See `OutboxStore.enqueue`."""
    existing = await with_key(tx, new.dedupe_key)
    if existing is not None:
        return as_message(existing), False
    placed = await place(tx, [(await participants.get(tx, new.participant_id), new)])
    await insert(tx, placed)
    return as_message(await row(tx, new.id)), True


async def with_key(tx: Transaction, dedupe_key: str | None) -> Row | None:
    """Return the message that has a dedupe key; none has, once its time is over."""
    if dedupe_key is None:
        return None
    existing = await tx.one("message_by_key", dedupe_key=dedupe_key, hold=DEDUPE_HOLD)
    return existing if existing is not None and existing["held"] else None


async def place(tx: Transaction, wanted: Sequence[tuple[Participant, NewMessage]]) -> list[Placed]:
    """Take places for messages in their recipients' lanes, in the order given; none for who has withdrawn.

    Raise `NotFoundError` when a recipient has no address on the channel. `insert` must follow in the same transaction;
    between the two, what comes after lanes in the order of locks may be locked.
    """
    addresses = [_address_of(person, new) for person, new in wanted]
    seqs: dict[MessageId, int] = {}
    for message_class in MessageClass:
        open_ = [
            new
            for person, new in wanted
            if person.status is not ParticipantStatus.WITHDRAWN and new.message_class is message_class
        ]
        if open_:
            keys = [lane_of(new) for new in open_]
            taken = await lanes.append(tx, Work.OUTBOX, keys, message_class.priority)
            seqs |= zip([new.id for new in open_], taken, strict=True)
    return [Placed(new, address, seqs.get(new.id)) for (_, new), address in zip(wanted, addresses, strict=True)]


def _address_of(person: Participant, new: NewMessage) -> Address:
    there = [address for address in person.addresses if address.channel == new.channel]
    if not there:
        raise NotFoundError(f"{new.channel} address of participant", new.participant_id)
    # A phone number before a user id: every account can be reached by it.
    return min(there, key=lambda item: item.kind is AddressKind.USER_ID)


async def insert(tx: Transaction, placed: Sequence[Placed]) -> None:
    """Put messages into the places that were taken for them."""
    if not placed:
        return
    rows = [
        {
            "id": new.id,
            "participant_id": new.participant_id,
            "channel": new.channel,
            "recipient": address.value,
            "recipient_kind": address.kind.value,
            "class": new.message_class.value,
            "lane_key": lane_of(new),
            "seq": seq,
            "kind": content_kind(new.content),
            "body": content_data(new.content),
            "status": (MessageStatus.CANCELED if seq is None else MessageStatus.QUEUED).value,
            "dedupe_key": new.dedupe_key,
            "flow_type": new.flow_type,
            "expires_at": micros(new.expires_at),
            "in_doubt_policy": None if new.in_doubt_policy is None else new.in_doubt_policy.value,
        }
        for new, address, seq in placed
    ]
    keys = [new.dedupe_key for new, _, _ in placed if new.dedupe_key is not None]
    if keys:
        await tx.run("forget_old_keys", dedupe_keys=keys, hold=DEDUPE_HOLD)
    await tx.run("insert_messages", messages=to_json(rows), max_attempts=DEFAULT_MAX_ATTEMPTS)


async def row(tx: Transaction, message_id: str) -> Row:
    """Return a message's row; raise `NotFoundError`."""
    found = await tx.one("message", id=message_id)
    if found is None:
        raise NotFoundError("message", message_id)
    return found


async def held_row(tx: Transaction, message_id: str) -> Row:
    """Return the row of a message that is to change, which nobody else changes until the end; raise `NotFoundError`.

    What guards a message is its lane. Its participant's mailbox comes first in the order of locks, and may be told.
    """
    found = await row(tx, message_id)
    await tx.lock_lanes(lanes_of(found))
    return await row(tx, message_id)


def lanes_of(message: Row) -> list[tuple[Work, str]]:
    """Return the lanes that change with a message: its own, and the mailbox of a flow that may wait for it."""
    return [(Work.MAILBOX, message["participant_id"]), (Work.OUTBOX, message["lane_key"])]


async def advance(
    tx: Transaction,
    message: Row,
    attempt: int,
    state: AttemptState,
    *,
    provider_id: str | None = None,
    error: str | None = None,
) -> None:
    """Move an attempt, and its message with it, forward to *state*; late and repeated news change nothing.

    Whoever calls it may hold the lane or not: a status needs no lease.
    """
    known = await tx.the("attempt", message_id=message["id"], n=attempt)
    merged = AttemptState(known["state"]).merged(state)
    await set_attempt(tx, message["id"], attempt, merged, provider_id=provider_id, error=error)
    states = [AttemptState(item["state"]) for item in await tx.all("attempt_states", message_id=message["id"])]
    status = advanced(MessageStatus(message["status"]), states)
    await set_status(tx, message, status, provider_id=provider_id, error=error)


async def set_status(
    tx: Transaction,
    message: Row,
    status: MessageStatus,
    *,
    provider_id: str | None = None,
    error: str | None = None,
) -> None:
    """Give a message its status, take it out of its lane when that is settled, and tell the flow that waits."""
    await tx.run(
        "set_message_status",
        id=message["id"],
        status=status.value,
        provider_id=provider_id,
        error=bounded(error),
    )
    if status.settled and (message["seq"], message["not_before"]) != (None, None):
        await leave_lane(tx, message)
    if message["flow_type"] is None:
        return
    event: MessageSent | MessageFailed
    if status.reached_provider and message["sent_at"] is None:
        event = MessageSent(flow_type=message["flow_type"], message_id=MessageId(message["id"]), sent_at=await tx.now())
    elif status.rank >= MessageStatus.SENT.rank and not status.reached_provider and message["failed_at"] is None:
        event = MessageFailed(
            flow_type=message["flow_type"], message_id=MessageId(message["id"]), error=error or status.value
        )
    else:
        return
    await mailbox_events.append(tx, [(ParticipantId(message["participant_id"]), event)])


async def leave_lane(tx: Transaction, message: Row) -> None:
    """Take a message out of its lane; when it was the head and nobody holds the lane, that is due for the next one."""
    await tx.run("leave_lane", id=message["id"])
    key = message["lane_key"]
    head = await tx.one("head_message", lane_key=key)
    if message["seq"] is None or (head is not None and head["seq"] < message["seq"]):
        return
    await tx.run("set_lane_due", kind=Work.OUTBOX.value, key=key, due_at=await _due(tx, head))
    tx.wake(Work.OUTBOX)


async def put_back(tx: Transaction, message: Row) -> None:
    """Queue a message in doubt again: in its place, or at the tail when it had left its lane."""
    await tx.run("queue_again", id=message["id"], uncounted=0, error=message["last_error"])
    if message["seq"] is None:
        await _enter_tail(tx, message)
    await tx.run("set_lane_due", kind=Work.OUTBOX.value, key=message["lane_key"], due_at=await tx.now())
    tx.wake(Work.OUTBOX)


async def retry(tx: Transaction, message_id: MessageId) -> OutboxMessage:
    """See `OutboxStore.retry`."""
    message = await held_row(tx, message_id)
    if message["status"] not in RETRIED:
        raise PreconditionError(f"the message {message_id} has not failed: it is {message['status']}")
    states = {AttemptState(item["state"]) for item in await tx.all("attempt_states", message_id=message_id)}
    if states & ARRIVED:
        raise PreconditionError(f"the message {message_id} has reached the provider after all")
    person = await participants.get(tx, ParticipantId(message["participant_id"]))
    if person.status is ParticipantStatus.WITHDRAWN:
        raise PreconditionError(f"the participant {person.id} has withdrawn")
    await tx.run("retry_message", id=message_id)
    await _enter_tail(tx, message)
    return as_message(await row(tx, message_id))


async def cancel(tx: Transaction, message_id: MessageId) -> OutboxMessage:
    """See `OutboxStore.cancel`."""
    message = await held_row(tx, message_id)
    match MessageStatus(message["status"]):
        case MessageStatus.QUEUED:
            await set_status(tx, message, MessageStatus.CANCELED, error=CANCELED_BY_OPERATOR)
        case MessageStatus.SENDING | MessageStatus.IN_DOUBT as status:
            hint = "ResolveInDoubt settles what stays in doubt"
            raise PreconditionError(f"the message {message_id} may have left: it is {status.value}; {hint}")
        case MessageStatus.CANCELED:
            pass
        case status:
            raise PreconditionError(f"the message {message_id} is settled: it is {status.value}")
    return as_message(await row(tx, message_id))


async def _enter_tail(tx: Transaction, message: Row) -> None:
    priority = MessageClass(message["class"]).priority
    [seq] = await lanes.append(tx, Work.OUTBOX, [message["lane_key"]], priority)
    await tx.run("enter_lane", id=message["id"], seq=seq)


async def head_due(tx: Transaction, key: str) -> datetime | None:
    """Return when the head of a lane is due, its pace aside; None when the lane is empty."""
    return await _due(tx, await tx.one("head_message", lane_key=key))


async def _due(tx: Transaction, head: Row | None) -> datetime | None:
    if head is None:
        return None
    in_doubt = head["status"] == MessageStatus.IN_DOUBT.value
    due: datetime = head["doubt_until"] if in_doubt else await tx.now()
    return due


async def doubt(
    tx: Transaction,
    message: Row,
    attempt: int,
    rules: InDoubtRules,
    *,
    start: datetime | None = None,
    error: str | None = None,
) -> None:
    """Record that nobody knows what became of an attempt, from *start* (now) on."""
    await set_attempt(tx, message["id"], attempt, AttemptState.IN_DOUBT, error=error)
    await tx.run("doubt", id=message["id"], start=start, wait=span(rules.wait), error=bounded(error))


async def count_in_doubt(tx: Transaction) -> int:
    """See `OutboxStore.count_in_doubt`."""
    count: int = (await tx.the("count_in_doubt"))["messages"]
    return count


async def doubt_if_sending(
    tx: Transaction, key: str, rules: InDoubtRules, error: str, *, start: datetime | None = None
) -> list[MessageId]:
    """Put the head of a lane in doubt if it is on the wire; return which messages that were."""
    head = await tx.one("head_message", lane_key=key)
    if head is None or head["status"] != MessageStatus.SENDING.value:
        return []
    await doubt(tx, head, head["attempts"], rules, start=start, error=error)
    return [MessageId(head["id"])]


async def set_attempt(
    tx: Transaction,
    message_id: str,
    attempt: int,
    state: AttemptState,
    *,
    provider_id: str | None = None,
    error: str | None = None,
) -> None:
    """Record where an attempt stands, without regard to its message."""
    await tx.run(
        "set_attempt",
        message_id=message_id,
        n=attempt,
        state=state.value,
        provider_id=provider_id,
        error=bounded(error),
    )


async def join_parked(tx: Transaction, channel: str, provider_id: str, message_id: MessageId, attempt: int) -> None:
    """Apply the statuses that came before we knew which message *provider_id* is."""
    parked = await tx.all("take_parked_receipts", channel=channel, provider_id=provider_id)
    for receipt_id in sorted(item["receipt_id"] for item in parked):
        receipt = await tx.the("receipt", id=receipt_id)
        await tx.run("join_receipt", id=receipt_id, message_id=message_id, attempt=attempt)
        state = AttemptState(receipt["status"])
        await advance(tx, await row(tx, message_id), attempt, state, provider_id=provider_id, error=receipt["error"])


def bounded(error: str | None) -> str | None:
    """Return an error's text as it can be stored."""
    return None if error is None else shortened(storable(error), MAX_ERROR_TEXT)


def as_message(row_: Row) -> OutboxMessage:
    """Return the message in a row of `outbox_messages`."""
    policy = row_["in_doubt_policy"]
    return OutboxMessage(
        id=MessageId(row_["id"]),
        participant_id=ParticipantId(row_["participant_id"]),
        channel=row_["channel"],
        recipient=Address(row_["channel"], AddressKind(row_["recipient_kind"]), row_["recipient"]),
        content=content_in(from_json(row_["body"])),
        message_class=MessageClass(row_["class"]),
        status=MessageStatus(row_["status"]),
        attempts=row_["attempts"],
        created_at=row_["created_at"],
        dedupe_key=row_["dedupe_key"],
        flow_type=row_["flow_type"],
        expires_at=row_["expires_at"],
        in_doubt_policy=None if policy is None else InDoubtPolicy(policy),
        provider_message_id=row_["provider_message_id"],
        last_error=row_["last_error"],
        sent_at=row_["sent_at"],
        delivered_at=row_["delivered_at"],
        read_at=row_["read_at"],
    )
