"""Messages that operators take back, and those that they have sent again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest

from promptpipe.model.errors import NotFoundError, PreconditionError
from promptpipe.model.events import MessageFailed, MessageSent
from promptpipe.model.ids import MessageId
from promptpipe.model.leases import Work
from promptpipe.model.messages import MessageStatus, Resolution, Settlement, Verdict
from tests.contract.test_races import MANY, all_at_once
from tests.support.people import batch, enroll, receipt
from tests.support.sending import (
    ACCEPTED,
    DOUBTFUL,
    REFUSED,
    attempts,
    claim_lanes,
    claim_order,
    mark,
    nothing_due,
    put,
    settle,
    status,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from promptpipe.model.events import Event
    from promptpipe.model.ids import ParticipantId
    from tests.support.database import Database

RETRY = Settlement(verdict=Verdict.RETRY, error="1: unknown", delay=5.0)


async def events(db: Database) -> list[Event]:
    """Return what waits in the one mailbox that is due."""
    told: list[Event] = []
    for delivery in (await db.store.mailboxes.claim(db.claim())).items:
        told.append(delivery.event.event)
        db.change("DELETE FROM mailbox_events WHERE id = ?", delivery.event.id)
        await db.store.mailboxes.give_back(delivery.lease)
    return told


async def failed(db: Database, person: ParticipantId, **other: object) -> MessageId:
    """Return a message that the provider has refused."""
    message_id = await put(db, person, **other)  # type: ignore[arg-type]
    await settle(db, await claim_order(db), REFUSED)
    return message_id


# ---------------------------------------------------------------- taking back


async def test_canceled_message_never_leaves(db: Database) -> None:
    """Those before and behind it do, in their order; taking it back twice is taking it back."""
    person = await enroll(db)
    first, second, third = [await put(db, person, str(n)) for n in range(3)]
    for _ in range(2):
        canceled = await db.store.outbox.cancel(second)
        assert (canceled.status, canceled.last_error) == (MessageStatus.CANCELED, "canceled by an operator")
    order = await claim_order(db)
    assert order.message.id == first
    following = await settle(db, order, ACCEPTED)
    assert following is not None
    assert following.message.id == third
    assert await settle(db, following, replace(ACCEPTED, provider_id="wamid.third")) is None
    assert attempts(db, second) == []


async def test_lane_goes_on_when_its_head_is_canceled(db: Database) -> None:
    """Though the head had to wait, the next one leaves at once; an empty lane is due no more."""
    person = await enroll(db)
    first = await put(db, person)
    await settle(db, await claim_order(db), RETRY)
    second = await put(db, person)
    assert await nothing_due(db) == 5.0
    db.runners.woken.clear()
    await db.store.outbox.cancel(first)
    assert db.runners.woken == [Work.OUTBOX]
    order = await claim_order(db)
    assert order.message.id == second
    await settle(db, order, RETRY)
    await db.store.outbox.cancel(second)
    assert await nothing_due(db) is None


async def test_canceling_another_does_not_hurry_the_head(db: Database) -> None:
    """It waits as long as it was told to."""
    person = await enroll(db)
    first, second = await put(db, person), await put(db, person)
    following = await settle(db, await claim_order(db), RETRY)
    assert following is None
    await db.store.outbox.cancel(second)
    assert await nothing_due(db) == 5.0
    db.clock.advance(5.0)
    assert (await claim_order(db)).message.id == first


async def test_postponed_message_is_canceled(db: Database) -> None:
    """It enters no lane any more, and hurries nobody in its own."""
    person = await enroll(db)
    postponed = await put(db, person)
    later = Settlement(verdict=Verdict.LATER, error="131049", delay=3600.0)
    await settle(db, await claim_order(db), later)
    waiting = await put(db, person)
    await settle(db, await claim_order(db), RETRY)
    await db.store.outbox.cancel(postponed)
    assert await nothing_due(db) == 5.0
    await db.store.outbox.cancel(waiting)
    db.clock.advance(3600.0)
    assert await nothing_due(db) is None
    assert await status(db, postponed) is MessageStatus.CANCELED


async def test_what_may_have_left_is_not_taken_back(db: Database) -> None:
    """On the wire, in doubt: an operator is told who decides then; settled ones stay as they are."""
    person = await enroll(db)
    message_id = await put(db, person)
    order = await claim_order(db)
    with pytest.raises(PreconditionError, match=r"sending; ResolveInDoubt"):
        await db.store.outbox.cancel(message_id)
    await settle(db, order, DOUBTFUL)
    with pytest.raises(PreconditionError, match=r"in_doubt; ResolveInDoubt"):
        await db.store.outbox.cancel(message_id)
    await db.store.outbox.resolve(message_id, Resolution.DROP)
    with pytest.raises(PreconditionError, match="settled: it is failed"):
        await db.store.outbox.cancel(message_id)
    with pytest.raises(NotFoundError):
        await db.store.outbox.cancel(MessageId("nothing"))


async def test_flow_that_waits_hears_once_that_its_message_was_taken_back(db: Database) -> None:
    """A status that comes later, about an attempt before, is no second failure."""
    person = await enroll(db)
    message_id = await put(db, person, flow_type="echo")
    await settle(db, await claim_order(db), RETRY)
    await db.store.outbox.cancel(message_id)
    late = receipt(MessageStatus.FAILED, reference=(message_id, 1), error="131026")
    await db.store.inbound.ingest(batch(late), None)
    assert await status(db, message_id) is MessageStatus.CANCELED
    heard = MessageFailed(flow_type="echo", message_id=message_id, error="canceled by an operator")
    assert await events(db) == [heard]
    assert await events(db) == []


@pytest.mark.parametrize("head_start", range(4))
async def test_message_is_canceled_or_sent_never_both(db: Database, head_start: int) -> None:
    """While the sender marks it, an operator takes it back: whoever comes second learns what the first has done."""
    person = await enroll(db)
    message_id = await put(db, person)
    [lease] = await claim_lanes(db)

    async def cancel() -> str:
        try:
            return (await db.store.outbox.cancel(message_id)).status.value
        except PreconditionError:
            return "refused"

    async def mark_head() -> str:
        order = await mark(db, lease)
        return "nothing to send" if order is None else "sending"

    calls = [cancel] * MANY
    calls.insert(head_start, mark_head)
    answers = set(await all_at_once(calls))
    if "sending" in answers:
        assert answers == {"sending", "refused"}
        assert (await status(db, message_id), attempts(db, message_id)) == (MessageStatus.SENDING, [(1, "sending")])
    else:
        assert answers == {"nothing to send", "canceled"}
        assert (await status(db, message_id), attempts(db, message_id)) == (MessageStatus.CANCELED, [])
        assert await nothing_due(db) is None


async def test_postponed_message_is_canceled_or_enters_its_lane_never_both(db: Database) -> None:
    """Whoever comes first: what is canceled stands in no lane."""
    person = await enroll(db)
    ids = [await put(db, person) for _ in range(MANY)]
    db.change("UPDATE outbox_messages SET seq = NULL, not_before = created_at")
    calls: list[Callable[[], Awaitable[object]]] = [partial(claim_lanes, db)]
    calls += [partial(db.store.outbox.cancel, message_id) for message_id in ids]
    await all_at_once(calls)
    assert db.rows("SELECT status, seq FROM outbox_messages GROUP BY status, seq") == [("canceled", None)]


# ---------------------------------------------------------------- sending again


async def test_failed_message_goes_again_at_the_tail(db: Database) -> None:
    """After what waits there, as another attempt of the same message."""
    person = await enroll(db)
    message_id = await failed(db, person)
    other = await put(db, person)
    db.runners.woken.clear()
    retried = await db.store.outbox.retry(message_id)
    assert (retried.status, retried.attempts) == (MessageStatus.QUEUED, 1)
    assert db.runners.woken == [Work.OUTBOX]
    order = await claim_order(db)
    assert order.message.id == other
    following = await settle(db, order, ACCEPTED)
    assert following is not None
    assert (following.message.id, following.attempt) == (message_id, 2)
    await settle(db, following, replace(ACCEPTED, provider_id="wamid.again"))
    sent = await db.store.outbox.get(message_id)
    assert (sent.status, sent.provider_message_id) == (MessageStatus.SENT, "wamid.again")


async def test_message_has_the_providers_id_of_its_last_attempt(db: Database) -> None:
    """The first was taken, and refused later; statuses of either are about this message."""
    person = await enroll(db)
    message_id = await put(db, person)
    await settle(db, await claim_order(db), ACCEPTED)
    await db.store.inbound.ingest(batch(receipt(MessageStatus.FAILED, error="131026")), None)
    retried = await db.store.outbox.retry(message_id)
    assert (retried.provider_message_id, retried.sent_at) == (None, None)
    await settle(db, await claim_order(db), replace(ACCEPTED, provider_id="wamid.again"))
    assert (await db.store.outbox.get(message_id)).provider_message_id == "wamid.again"
    await db.store.inbound.ingest(batch(receipt(MessageStatus.READ)), None)
    assert await status(db, message_id) is MessageStatus.READ


async def test_attempts_are_counted_anew(db: Database) -> None:
    """As many as a new message has."""
    person = await enroll(db)
    message_id = await put(db, person)
    db.change("UPDATE outbox_messages SET max_attempts = 2")
    for round_ in range(2):
        for _ in range(2):
            assert await status(db, message_id) is MessageStatus.QUEUED
            await settle(db, await claim_order(db), replace(RETRY, delay=0.0))
        assert await status(db, message_id) is MessageStatus.FAILED
        if round_ == 0:
            await db.store.outbox.retry(message_id)
    assert attempts(db, message_id) == [(n, "failed") for n in (1, 2, 3, 4)]


async def test_expired_and_canceled_messages_go_again(db: Database) -> None:
    """The expired one for good: its time is over, and it was asked for all the same."""
    person = await enroll(db)
    expired = await put(db, person, expires_at=db.clock.now() + timedelta(seconds=5))
    canceled = await put(db, person, expires_at=db.clock.now() + timedelta(days=1))
    await db.store.outbox.cancel(canceled)
    db.clock.advance(5.0)
    [lease] = await claim_lanes(db)
    assert await mark(db, lease) is None
    assert await status(db, expired) is MessageStatus.EXPIRED
    assert (await db.store.outbox.retry(expired)).expires_at is None
    assert (await db.store.outbox.retry(canceled)).expires_at == db.clock.now() + timedelta(days=1, seconds=-5)
    order = await claim_order(db)
    assert order.message.id == expired
    following = await settle(db, order, ACCEPTED)
    assert following is not None
    assert following.message.id == canceled


async def test_only_what_has_failed_is_sent_again(db: Database) -> None:
    """What waits, is on its way, or has been sent, is not."""
    person = await enroll(db)
    message_id = await put(db, person)
    states = []

    async def refused() -> None:
        with pytest.raises(PreconditionError) as raised:
            await db.store.outbox.retry(message_id)
        states.append(str(raised.value).rpartition(" ")[2])

    await refused()
    order = await claim_order(db)
    await refused()
    await settle(db, order, DOUBTFUL)
    await refused()
    for known in (MessageStatus.SENT, MessageStatus.DELIVERED, MessageStatus.READ):
        await db.store.inbound.ingest(batch(receipt(known, reference=(message_id, 1))), None)
        await refused()
    assert states == ["queued", "sending", "in_doubt", "sent", "delivered", "read"]
    with pytest.raises(NotFoundError):
        await db.store.outbox.retry(MessageId("nothing"))


async def test_message_that_has_arrived_after_all_is_not_sent_again(db: Database) -> None:
    """Canceled before its second attempt, while the first was with the provider: nobody is to get it twice."""
    person = await enroll(db)
    message_id = await put(db, person)
    await settle(db, await claim_order(db), RETRY)
    await db.store.outbox.cancel(message_id)
    await db.store.inbound.ingest(batch(receipt(MessageStatus.DELIVERED, reference=(message_id, 1))), None)
    with pytest.raises(PreconditionError, match="reached the provider"):
        await db.store.outbox.retry(message_id)


async def test_nothing_is_sent_again_to_someone_who_withdrew(db: Database) -> None:
    """The operator is told so."""
    message_id = await failed(db, await enroll(db))
    db.change("UPDATE conversation_participants SET status = 'withdrawn'")
    with pytest.raises(PreconditionError, match="withdrawn"):
        await db.store.outbox.retry(message_id)
    assert await status(db, message_id) is MessageStatus.FAILED


async def test_status_of_an_earlier_attempt_still_counts(db: Database) -> None:
    """It settles the message before the new attempt leaves."""
    message_id = await failed(db, await enroll(db))
    await db.store.outbox.retry(message_id)
    await db.store.inbound.ingest(batch(receipt(MessageStatus.DELIVERED, reference=(message_id, 1))), None)
    assert await status(db, message_id) is MessageStatus.DELIVERED
    assert await nothing_due(db) is None


async def test_flow_that_waits_hears_what_became_of_it_this_time(db: Database) -> None:
    """It failed, and then it was sent: both are news."""
    message_id = await failed(db, await enroll(db), flow_type="echo")
    assert [type(event) for event in await events(db)] == [MessageFailed]
    for settlement, told in ((REFUSED, MessageFailed), (ACCEPTED, MessageSent)):
        await db.store.outbox.retry(message_id)
        await settle(db, await claim_order(db), settlement)
        assert [type(event) for event in await events(db)] == [told]


async def test_message_that_many_send_again_goes_once(db: Database) -> None:
    """The others are told that it is queued."""
    message_id = await failed(db, await enroll(db))

    async def retry() -> bool:
        try:
            await db.store.outbox.retry(message_id)
        except PreconditionError:
            return False
        return True

    assert sum(await all_at_once([retry] * MANY)) == 1
    assert await settle(db, await claim_order(db), ACCEPTED) is None
