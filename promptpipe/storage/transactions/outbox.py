"""The outbox's lanes: who may send what, and what came of it."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from promptpipe.model.errors import LeaseLostError, NotFoundError, PreconditionError
from promptpipe.model.leases import Claimed, Work
from promptpipe.model.messages import (
    AttemptState,
    MessageClass,
    MessageStatus,
    Resolution,
    SendOrder,
    Verdict,
)
from promptpipe.storage.transactions import lanes, messages
from promptpipe.storage.transactions import outbox_orders as orders
from promptpipe.storage.transactions.floors import Floors
from promptpipe.storage.transactions.pages import page
from promptpipe.storage.transactions.values import span, to_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from promptpipe.model.ids import MessageId
    from promptpipe.model.leases import Claim, Lease
    from promptpipe.model.listing import MessageFilter, Page, PageRequest
    from promptpipe.model.messages import InDoubtRules, NewMessage, OutboxMessage, SendRecord, Settlement
    from promptpipe.storage.transactions.transaction import Database, Row, Transaction

    Answers = Sequence[SendOrder | LeaseLostError | None]

ADMIT_LIMIT = 100
"""Postponed messages that enter their lanes in one claim, at most."""

DROPPED_BY_OPERATOR = "dropped by an operator"
RESENT_BY_OPERATOR = "sent again by an operator"

_ATTEMPT_STATES = dict.fromkeys(Verdict, AttemptState.FAILED) | {
    Verdict.ACCEPTED: AttemptState.SENT,
    Verdict.DOUBTFUL: AttemptState.IN_DOUBT,
    Verdict.UNSENT: AttemptState.UNSENT,
}


class OutboxTransactions:
    """`ports.store.OutboxStore`."""

    def __init__(self, database: Database, handing: Database, rules: InDoubtRules) -> None:
        self._database = database
        self._handing = handing
        self._rules = rules
        self._floors = Floors(lanes.LEVELS)

    async def enqueue(self, new: NewMessage) -> tuple[OutboxMessage, bool]:
        """See `OutboxStore.enqueue`."""
        return await self._database.write(partial(messages.enqueue, new=new))

    async def get(self, message_id: MessageId) -> OutboxMessage:
        """See `OutboxStore.get`."""
        return await self._database.read(partial(_get, message_id=message_id))

    async def list(self, wanted: MessageFilter, page: PageRequest) -> Page[OutboxMessage]:
        """See `OutboxStore.list`."""
        return await self._database.read(partial(_list, wanted=wanted, request=page))

    async def resolve(self, message_id: MessageId, resolution: Resolution) -> OutboxMessage:
        """See `OutboxStore.resolve`."""
        return await self._database.write(partial(_resolve, message_id=message_id, resolution=resolution))

    async def retry(self, message_id: MessageId) -> OutboxMessage:
        """See `OutboxStore.retry`."""
        return await self._database.write(partial(messages.retry, message_id=message_id))

    async def cancel(self, message_id: MessageId) -> OutboxMessage:
        """See `OutboxStore.cancel`."""
        return await self._database.write(partial(messages.cancel, message_id=message_id))

    async def count_in_doubt(self) -> int:
        """See `OutboxStore.count_in_doubt`."""
        return await self._database.read(messages.count_in_doubt)

    async def claim(self, claim: Claim) -> Claimed[Lease]:
        """See `OutboxStore.claim`."""
        return await self._database.write(partial(_claim, request=claim, floors=self._floors))

    async def mark_sending(self, leases: Sequence[Lease], *, seconds: float) -> Answers:
        """See `OutboxStore.mark_sending`."""
        return await self._database.write(
            partial(_mark_sending, leases=leases, lease_seconds=seconds, rules=self._rules)
        )

    async def record(self, records: Sequence[SendRecord]) -> Answers:
        """See `OutboxStore.record`."""
        return await self._handing.write(partial(_record, records=records, rules=self._rules))


async def _list(tx: Transaction, wanted: MessageFilter, request: PageRequest) -> Page[OutboxMessage]:
    status = None if wanted.status is None else wanted.status.value
    if wanted.participant_id is None:
        return await page(tx, "list_messages", request, messages.as_message, status=status)
    return await page(
        tx, "list_messages_of", request, messages.as_message, status=status, participant_id=wanted.participant_id
    )


async def _get(tx: Transaction, message_id: MessageId) -> OutboxMessage:
    return messages.as_message(await messages.row(tx, message_id))


async def _resolve(tx: Transaction, message_id: MessageId, resolution: Resolution) -> OutboxMessage:
    message = await messages.held_row(tx, message_id)
    if message["status"] != MessageStatus.IN_DOUBT.value:
        raise PreconditionError(f"the message {message_id} is not in doubt: it is {message['status']}")
    match resolution:
        case Resolution.MARK_SENT:
            await messages.advance(tx, message, message["attempts"], AttemptState.SENT)
        case Resolution.DROP:
            await orders.give_up(tx, message, DROPPED_BY_OPERATOR)
            await messages.set_status(tx, message, MessageStatus.FAILED, error=DROPPED_BY_OPERATOR)
        case Resolution.RESEND:
            await orders.give_up(tx, message, RESENT_BY_OPERATOR)
            await messages.put_back(tx, message)
    return await _get(tx, message_id)


async def _claim(tx: Transaction, request: Claim, floors: Floors) -> Claimed[Lease]:
    postponed, [following] = await tx.several(("postponed_messages", {"limit": ADMIT_LIMIT}), ("next_postponed", {}))
    await _admit(tx, postponed)
    taken = await lanes.claim(tx, Work.OUTBOX, request, floors)
    dues = [taken.due_in, None if following["due_in"] is None else following["due_in"].total_seconds()]
    next_due_in = min((due for due in dues if due is not None), default=None)
    return Claimed(items=taken.leases, suspect=taken.suspect, next_due_in=next_due_in)


async def _admit(tx: Transaction, postponed: Sequence[Row]) -> None:
    """Let messages enter their lanes whose time has come."""
    await tx.lock_lanes([(Work.OUTBOX, row["lane_key"]) for row in postponed])
    for row in postponed:
        priority = MessageClass(row["class"]).priority
        [seq] = await lanes.append(tx, Work.OUTBOX, [row["lane_key"]], priority)
        await tx.run("enter_lane", id=row["id"], seq=seq)


async def _mark_sending(tx: Transaction, leases: Sequence[Lease], lease_seconds: float, rules: InDoubtRules) -> Answers:
    await tx.lock_lanes({lane for lease in leases for lane in _lanes(lease)})
    rows, *found = await tx.several(lanes.look(Work.OUTBOX, leases), *orders.look(leases))
    held = lanes.held(Work.OUTBOX, rows)
    ours = sorted(held, key=_by_key)
    following = await orders.next_orders(tx, ours, found, lease_seconds, rules, orderly=False)
    return [following[lease] if lease in held else lanes.lost(lease) for lease in leases]


def _lanes(lease: Lease, *others: str) -> list[tuple[Work, str]]:
    """Return a lane and *others*, and the mailbox in which a flow may be told of a message's fate."""
    mailbox = messages.recipient_of_lane(lease.key)
    return [(Work.MAILBOX, mailbox), *((Work.OUTBOX, key) for key in (lease.key, *others))]


def _by_key(lease: Lease) -> str:
    return lease.key


async def _record(tx: Transaction, records: Sequence[SendRecord], rules: InDoubtRules) -> Answers:
    """Record what became of orders. Plain acceptances, nearly all of them, are recorded in one statement each."""
    held, plain = await _locked(tx, records)
    accepted = [
        {"id": record.order.message.id, "n": record.order.attempt, "provider_id": record.settlement.provider_id}
        for record in plain
    ]
    if accepted:
        await tx.run("accept_attempts", accepted=to_json(accepted))
        await tx.run("accept_messages", accepted=to_json(accepted))
    answers: dict[Lease, SendOrder | LeaseLostError | None] = {}
    recorded = {record.order.lease for record in plain}
    for record in records:
        lease = record.order.lease
        if lease not in recorded:
            answers[lease] = await _record_one(tx, record, rules, held=lease in held)
        elif record.next_within is None:
            await lanes.release(tx, [lease], await messages.head_due(tx, lease.key))
            answers[lease] = None
    for seconds in {record.next_within for record in plain} - {None}:
        going_on = [record.order.lease for record in plain if record.next_within == seconds]
        found = await tx.several(*orders.look(going_on))
        answers |= await orders.next_orders(tx, going_on, found, seconds or 0.0, rules, orderly=True)
    return [answers[record.order.lease] for record in records]


async def _locked(tx: Transaction, records: Sequence[SendRecord]) -> tuple[frozenset[Lease], list[SendRecord]]:
    """Lock all that recording may touch; return the leases that are held, and the plain records.

    Plain are those accepted as was to be expected: nothing else has come, and nobody waits to be told.
    """
    names, wanted = set(), set()
    for record in records:
        message = record.order.message
        if record.settlement.provider_id is not None:
            names.add(messages.provider_name(message.channel, record.settlement.provider_id))
        wanted |= set(_lanes(record.order.lease, *messages.lanes_to(message.participant_id, message.channel)))
    await tx.lock_names(names)
    await tx.lock_lanes(wanted)
    accepted = {
        (record.order.message.channel, record.settlement.provider_id): record
        for record in records
        if record.settlement.verdict is Verdict.ACCEPTED and record.settlement.provider_id is not None
    }
    rows, on_their_way, known = await tx.several(
        lanes.look(Work.OUTBOX, [record.order.lease for record in records]),
        ("messages_on_their_way", {"ids": [record.order.message.id for record in accepted.values()]}),
        ("known_among", {"wanted": to_json([{"channel": key[0], "provider_id": key[1]} for key in accepted])}),
    )
    held = lanes.held(Work.OUTBOX, rows)
    for row in known:
        accepted.pop((row["channel"], row["provider_id"]), None)
    expected = {(row["id"], row["attempts"]) for row in on_their_way}
    plain = [
        record
        for record in accepted.values()
        if record.order.lease in held and (record.order.message.id, record.order.attempt) in expected
    ]
    return held, plain


async def _record_one(
    tx: Transaction, record: SendRecord, rules: InDoubtRules, *, held: bool
) -> SendOrder | LeaseLostError | None:
    """Record one result; give the next order, or why there is none though the result was kept."""
    order = record.order
    if not held:
        if record.settlement.verdict is Verdict.ACCEPTED:
            with suppress(NotFoundError):  # erased with its person while it was on its way
                await _apply(tx, order, record.settlement, rules)
        return lanes.lost(order.lease)
    due_at = await _apply(tx, order, record.settlement, rules)
    if due_at is not None or record.next_within is None:
        await lanes.release(tx, [order.lease], due_at or await messages.head_due(tx, order.lease.key))
        return None
    return await orders.next_order(tx, order.lease, record.next_within, rules, orderly=True)


async def _apply(tx: Transaction, order: SendOrder, settlement: Settlement, rules: InDoubtRules) -> datetime | None:
    """Apply a settlement to message and attempt; return when the lane is due if it has to wait."""
    message = await messages.row(tx, order.message.id)
    attempt = await tx.the("attempt", message_id=message["id"], n=order.attempt)
    n, error = order.attempt, settlement.error
    if settlement.verdict is Verdict.ACCEPTED:
        await messages.advance(tx, message, n, AttemptState.SENT, provider_id=settlement.provider_id)
        if settlement.provider_id is not None:
            await messages.join_parked(tx, message["channel"], settlement.provider_id, order.message.id, n)
        return None
    if attempt["state"] != AttemptState.SENDING.value:
        return None  # a status came first: it knows more than we do
    if message["status"] != MessageStatus.SENDING.value:
        # A late status settled the message by an earlier attempt; this one is only noted.
        await messages.set_attempt(tx, message["id"], n, _ATTEMPT_STATES[settlement.verdict], error=error)
        return None
    if settlement.verdict is Verdict.DOUBTFUL:
        await messages.doubt(tx, message, n, rules, error=error)
        return None
    counted = message["attempts"] - message["uncounted"]
    final = settlement.verdict is Verdict.REFUSED or (
        settlement.verdict in {Verdict.RETRY, Verdict.SLOW_RECIPIENT, Verdict.LATER}
        and counted >= message["max_attempts"]
    )
    if final:
        await messages.advance(tx, message, n, AttemptState.FAILED, error=error)
        return None
    return await _put_back(tx, message, n, settlement)


async def _put_back(tx: Transaction, message: Row, n: int, settlement: Settlement) -> datetime | None:
    """Queue a refused or unsent message again; return when its lane is due if it stays at the head."""
    verdict, error = settlement.verdict, messages.bounded(settlement.error)
    await messages.set_attempt(tx, message["id"], n, _ATTEMPT_STATES[verdict], error=error)
    due_at = await tx.now() + span(settlement.delay)
    if verdict is Verdict.LATER:
        await tx.run("postpone_message", id=message["id"], not_before=due_at, error=error)
        return None
    uncounted = verdict in {Verdict.UNSENT, Verdict.SLOW_CHANNEL, Verdict.PAUSE_CHANNEL}
    await tx.run("queue_again", id=message["id"], uncounted=int(uncounted), error=error)
    if verdict is Verdict.SLOW_RECIPIENT:
        for key, kind in messages.lanes_to(message["participant_id"], message["channel"]).items():
            await tx.run("set_pace", key=key, priority=kind.priority, pace_at=due_at)
    elif verdict in {Verdict.SLOW_CHANNEL, Verdict.PAUSE_CHANNEL}:
        await tx.run("pause_channel", name=message["channel"], paused_until=due_at, reason=error or verdict.value)
    return due_at
