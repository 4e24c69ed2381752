"""The outbox's lanes: who may send what, and what came of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from promptpipe.model.errors import LeaseLostError, PreconditionError
from promptpipe.model.leases import Claimed, Work
from promptpipe.model.messages import (
    AttemptState,
    InDoubtPolicy,
    MessageClass,
    MessageStatus,
    Resolution,
    SendOrder,
    Verdict,
)
from promptpipe.storage.transactions import lanes, messages
from promptpipe.storage.transactions.pages import page
from promptpipe.storage.transactions.values import span

if TYPE_CHECKING:
    from datetime import datetime

    from promptpipe.model.ids import MessageId
    from promptpipe.model.leases import Claim, Lease
    from promptpipe.model.listing import MessageFilter, Page, PageRequest
    from promptpipe.model.messages import InDoubtRules, NewMessage, OutboxMessage, Settlement
    from promptpipe.storage.transactions.transaction import Database, Row, Transaction

ADMIT_LIMIT = 100
"""Postponed messages that enter their lanes in one claim, at most."""

SENDER_VANISHED = "its sender vanished while the request was on its way"
DROPPED = "dropped: no status came within the wait"
DROPPED_BY_OPERATOR = "dropped by an operator"
RESENT_BY_OPERATOR = "sent again by an operator"
SENT_AGAIN = "no status came within the wait; sent again"

_ATTEMPT_STATES = dict.fromkeys(Verdict, AttemptState.FAILED) | {
    Verdict.ACCEPTED: AttemptState.SENT,
    Verdict.DOUBTFUL: AttemptState.IN_DOUBT,
    Verdict.UNSENT: AttemptState.UNSENT,
}


class OutboxTransactions:
    """`ports.store.OutboxStore`."""

    def __init__(self, database: Database, rules: InDoubtRules) -> None:
        self._database = database
        self._rules = rules

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

    async def claim(self, claim: Claim) -> Claimed[Lease]:
        """See `OutboxStore.claim`."""
        return await self._database.write(partial(_claim, request=claim))

    async def mark_sending(self, lease: Lease, *, seconds: float) -> SendOrder | None:
        """See `OutboxStore.mark_sending`."""
        return await self._database.write(partial(_mark_sending, lease=lease, lease_seconds=seconds, rules=self._rules))

    async def record(self, order: SendOrder, settlement: Settlement, *, next_within: float | None) -> SendOrder | None:
        """See `OutboxStore.record`."""
        following, lost = await self._database.write(
            partial(_record, order=order, settlement=settlement, next_within=next_within, rules=self._rules)
        )
        if lost is not None:
            raise lost
        return following


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
            await _give_up(tx, message, DROPPED_BY_OPERATOR)
            await messages.set_status(tx, message, MessageStatus.FAILED, error=DROPPED_BY_OPERATOR)
        case Resolution.RESEND:
            await _give_up(tx, message, RESENT_BY_OPERATOR)
            await messages.put_back(tx, message)
    return await _get(tx, message_id)


async def _claim(tx: Transaction, request: Claim) -> Claimed[Lease]:
    postponed = await tx.all("postponed_messages", limit=ADMIT_LIMIT)
    await tx.lock_lanes([(Work.OUTBOX, row["lane_key"]) for row in postponed])
    for row in postponed:
        priority = MessageClass(row["class"]).priority
        seq = await lanes.append(tx, Work.OUTBOX, row["lane_key"], priority)
        await tx.run("enter_lane", id=row["id"], seq=seq)
    leases, suspect = await lanes.claim(tx, Work.OUTBOX, request)
    dues = [await lanes.next_due_in(tx, Work.OUTBOX)]
    following = await tx.the("next_postponed")
    if following["due_in"] is not None:
        dues.append(following["due_in"].total_seconds())
    next_due_in = min((due for due in dues if due is not None), default=None)
    return Claimed(items=leases, suspect=suspect, next_due_in=next_due_in)


async def _mark_sending(tx: Transaction, lease: Lease, lease_seconds: float, rules: InDoubtRules) -> SendOrder | None:
    await _lock(tx, lease)
    await lanes.check(tx, lease)
    return await _next_order(tx, lease, lease_seconds, rules, orderly=False)


async def _lock(tx: Transaction, lease: Lease, *others: str) -> None:
    """Lock a lane and *others*, and before them the mailbox in which a flow may be told of a message's fate."""
    mailbox = messages.recipient_of_lane(lease.key)
    await tx.lock_lanes([(Work.MAILBOX, mailbox), *((Work.OUTBOX, key) for key in (lease.key, *others))])


async def _next_order(
    tx: Transaction, lease: Lease, lease_seconds: float, rules: InDoubtRules, *, orderly: bool
) -> SendOrder | None:
    """Mark the head of a checked lane SENDING, or release the lane when there is nothing to send now."""
    while (head := await tx.one("head_message", lane_key=lease.key)) is not None:
        if head["status"] == MessageStatus.SENDING.value:
            attempt = await tx.the("attempt", message_id=head["id"], n=head["attempts"])
            if attempt["fence"] == lease.fence:
                # The commit that marked it was this very call's, whose answer was lost: it has not left.
                await lanes.keep(tx, lease, lease_seconds, orderly=orderly)
                return SendOrder(lease, messages.as_message(head), head["attempts"])
            start = await tx.now() + span(rules.linger)
            await messages.doubt(tx, head, head["attempts"], rules, start=start, error=SENDER_VANISHED)
            head = await messages.row(tx, head["id"])
        if head["status"] == MessageStatus.IN_DOUBT.value and head["doubt_until"] > await tx.now():
            await lanes.release(tx, lease, head["doubt_until"])
            return None
        pause = await tx.one("channel_pause", name=head["channel"])
        if pause is not None:
            await lanes.release(tx, lease, pause["paused_until"])
            return None
        marked = await _marked(tx, head, rules)
        if marked is None:
            continue
        await tx.run(
            "insert_attempt",
            message_id=head["id"],
            n=marked["attempts"],
            fence=lease.fence,
            channel=head["channel"],
        )
        await lanes.keep(tx, lease, lease_seconds, orderly=orderly)
        return SendOrder(lease, messages.as_message(marked), marked["attempts"])
    await lanes.release(tx, lease, None)
    return None


async def _marked(tx: Transaction, head: Row, rules: InDoubtRules) -> Row | None:
    """Mark a head SENDING and return its row, or settle why it must not go out: then it has left the lane."""
    in_doubt = head["status"] == MessageStatus.IN_DOUBT.value
    policy = InDoubtPolicy(head["in_doubt_policy"]) if head["in_doubt_policy"] else rules.policy
    if in_doubt and policy is InDoubtPolicy.HOLD:
        await messages.leave_lane(tx, head)
        return None
    exhausted = head["attempts"] - head["uncounted"] >= head["max_attempts"]
    if not exhausted and not (in_doubt and policy is InDoubtPolicy.DROP):
        marked = await tx.one("mark_sending", id=head["id"])
        if marked is not None:
            if in_doubt:
                await _give_up(tx, head, SENT_AGAIN)
            return marked
    if in_doubt:
        await _give_up(tx, head, DROPPED)
        await messages.set_status(tx, head, MessageStatus.FAILED, error=DROPPED)
    elif exhausted:
        await messages.set_status(tx, head, MessageStatus.FAILED, error=f"out of attempts: {head['last_error']}")
    elif head["expires_at"] is not None and head["expires_at"] <= await tx.now():
        await messages.set_status(tx, head, MessageStatus.EXPIRED)
    else:
        await messages.set_status(tx, head, MessageStatus.CANCELED)
    return None


async def _give_up(tx: Transaction, head: Row, error: str) -> None:
    """Take the attempt in doubt for failed."""
    await messages.set_attempt(tx, head["id"], head["attempts"], AttemptState.DROPPED, error=error)


async def _record(
    tx: Transaction, order: SendOrder, settlement: Settlement, next_within: float | None, rules: InDoubtRules
) -> tuple[SendOrder | None, LeaseLostError | None]:
    """Record a result; give the next order, or why there is none though the result was kept."""
    lost = None
    if settlement.provider_id is not None:
        await tx.lock_names([messages.provider_name(order.message.channel, settlement.provider_id)])
    await _lock(tx, order.lease, *messages.lanes_to(order.message.participant_id, order.message.channel))
    try:
        await lanes.check(tx, order.lease)
    except LeaseLostError as error:
        if settlement.verdict is not Verdict.ACCEPTED:
            raise
        lost = error
    due_at = await _apply(tx, order, settlement, rules)
    if lost is not None:
        return None, lost
    if due_at is not None or next_within is None:
        await lanes.release(tx, order.lease, due_at or await messages.head_due(tx, order.lease.key))
        return None, None
    return await _next_order(tx, order.lease, next_within, rules, orderly=True), None


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
