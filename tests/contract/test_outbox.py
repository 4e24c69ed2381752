"""The outbox: in order, and once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from promptpipe.model.errors import LeaseLostError, NotFoundError
from promptpipe.model.events import MessageFailed, MessageSent
from promptpipe.model.ids import MessageId
from promptpipe.model.leases import Work
from promptpipe.model.messages import MessageClass, MessageStatus, SendRecord, Settlement, Verdict
from tests.support.database import LEASE_SECONDS
from tests.support.people import ADA, BOB, batch, enroll, message, receipt
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
    record,
    settle,
    status,
)

if TYPE_CHECKING:
    from promptpipe.model.messages import SendOrder
    from tests.support.database import Database


# ---------------------------------------------------------------- order


async def test_message_is_marked_before_it_leaves_and_sent_when_accepted(db: Database) -> None:
    """QUEUED, SENDING with an attempt, SENT with the provider's id."""
    person = await enroll(db)
    message_id = await put(db, person)
    assert db.runners.woken[-1] is Work.OUTBOX
    [lease] = await claim_lanes(db)
    assert await status(db, message_id) is MessageStatus.QUEUED
    order = await mark(db, lease)
    assert order is not None
    assert (order.message.id, order.reference) == (message_id, f"{message_id}:1")
    assert (await status(db, message_id), attempts(db, message_id)) == (
        MessageStatus.SENDING,
        [(1, "sending")],
    )
    assert await settle(db, order, ACCEPTED) is None
    sent = await db.store.outbox.get(message_id)
    assert (sent.status, sent.provider_message_id, sent.sent_at) == (
        MessageStatus.SENT,
        "wamid.out",
        db.clock.now(),
    )


async def test_messages_to_one_person_leave_in_the_order_they_were_enqueued(db: Database) -> None:
    """The commit that records one result marks the next; until then nobody has it."""
    person = await enroll(db)
    ids = [await put(db, person, str(n)) for n in range(3)]
    order: SendOrder | None = await claim_order(db)
    for message_id in ids:
        assert order is not None
        assert order.message.id == message_id
        assert await claim_lanes(db) == []
        order = await settle(db, order, replace(ACCEPTED, provider_id=f"wamid.{message_id}"))
    assert order is None


async def test_replies_are_claimed_before_broadcasts(db: Database) -> None:
    """Answers overtake what goes to everybody."""
    ada, bob = await enroll(db, ADA), await enroll(db, BOB)
    await put(db, ada, message_class=MessageClass.BROADCAST)
    db.clock.advance(1.0)
    await put(db, bob, message_class=MessageClass.REPLY)
    [first] = (await db.store.outbox.claim(db.claim(limit=1))).items
    assert bob in first.key


async def test_blocked_recipient_delays_nobody_else(db: Database) -> None:
    """A lane in doubt holds its own messages only."""
    ada, bob = await enroll(db, ADA), await enroll(db, BOB)
    await put(db, ada)
    await settle(db, await claim_order(db), DOUBTFUL)
    await put(db, bob)
    assert (await claim_order(db)).message.participant_id == bob


async def test_append_to_a_lane_that_waits_keeps_its_time(db: Database) -> None:
    """A new message does not make a refused one leave earlier, nor overtake it."""
    person = await enroll(db)
    first = await put(db, person)
    retry = Settlement(verdict=Verdict.RETRY, error="1: unknown", delay=5.0)
    await settle(db, await claim_order(db), retry)
    await put(db, person)
    assert await nothing_due(db) == 5.0
    db.clock.advance(5.0)
    order = await claim_order(db)
    assert (order.message.id, order.attempt) == (first, 2)


# ---------------------------------------------------------------- refusals


async def test_refused_message_fails_and_the_next_leaves(db: Database) -> None:
    """What the provider refuses for good does not block the lane."""
    person = await enroll(db)
    first, second = await put(db, person), await put(db, person)
    following = await settle(db, await claim_order(db), REFUSED)
    failed = await db.store.outbox.get(first)
    assert (failed.status, failed.last_error) == (MessageStatus.FAILED, "100: Invalid parameter")
    assert following is not None
    assert following.message.id == second


async def test_retries_are_bounded(db: Database) -> None:
    """A message that is refused for now, again and again, fails in the end."""
    person = await enroll(db)
    message_id = await put(db, person)
    db.change("UPDATE outbox_messages SET max_attempts = 2")
    for _ in range(2):
        await settle(db, await claim_order(db), Settlement(verdict=Verdict.RETRY, error="1", delay=0.0))
    assert await status(db, message_id) is MessageStatus.FAILED


@pytest.mark.parametrize("verdict", [Verdict.UNSENT, Verdict.SLOW_CHANNEL, Verdict.PAUSE_CHANNEL])
async def test_what_is_not_the_messages_fault_counts_no_attempt(db: Database, verdict: Verdict) -> None:
    """A network or a number that is out of order for an hour fails nobody's message."""
    person = await enroll(db)
    message_id = await put(db, person)
    db.change("UPDATE outbox_messages SET max_attempts = 1")
    for _ in range(5):
        await settle(db, await claim_order(db), Settlement(verdict=verdict, error="x", delay=1.0))
        db.clock.advance(1.0)
    assert await status(db, message_id) is MessageStatus.QUEUED


async def test_slow_channel_holds_every_lane(db: Database) -> None:
    """When the number is throttled, nothing leaves by it until the pause is over."""
    ada, bob = await enroll(db, ADA), await enroll(db, BOB)
    await put(db, ada)
    await settle(db, await claim_order(db), Settlement(verdict=Verdict.SLOW_CHANNEL, error="130429", delay=9.0))
    await put(db, bob)
    [lease] = await claim_lanes(db)
    assert await mark(db, lease) is None
    assert await nothing_due(db) == 9.0
    db.clock.advance(9.0)
    assert len(await claim_lanes(db)) == 2


async def test_slow_recipient_holds_replies_and_broadcasts_alike(db: Database) -> None:
    """Both lanes to a person share one pace."""
    person = await enroll(db)
    await put(db, person)
    slow = Settlement(verdict=Verdict.SLOW_RECIPIENT, error="131056", delay=16.0)
    await settle(db, await claim_order(db), slow)
    await put(db, person, message_class=MessageClass.BROADCAST)
    # The broadcast's lane was made after the pace was set, so the store has to look at the other one's.
    assert await nothing_due(db) == 16.0
    db.clock.advance(16.0)
    assert len(await claim_lanes(db)) == 2


async def test_pace_outlasts_a_sender_that_vanished(db: Database) -> None:
    """What another sender held when the recipient was found to be too fast waits like everything else."""
    person = await enroll(db)
    await put(db, person)
    await put(db, person, message_class=MessageClass.BROADCAST)
    for worker in (db.worker, "other"):
        [lease] = (await db.store.outbox.claim(db.claim(limit=1, worker=worker))).items
        if worker == db.worker:
            order = await mark(db, lease)
    assert order is not None
    await settle(db, order, Settlement(verdict=Verdict.SLOW_RECIPIENT, error="131056", delay=16.0))
    await db.store.recovery.requeue_stale_sending_messages()
    assert await nothing_due(db) == 16.0


async def test_message_for_later_lets_the_others_pass(db: Database) -> None:
    """A long wait leaves the lane, and enters its tail again when it is over."""
    person = await enroll(db)
    first, second = await put(db, person), await put(db, person)
    later = Settlement(verdict=Verdict.LATER, error="131049", delay=3600.0)
    following = await settle(db, await claim_order(db), later)
    assert following is not None
    assert following.message.id == second
    await settle(db, following, ACCEPTED)
    assert await nothing_due(db) == 3600.0
    db.clock.advance(3600.0)
    third = await put(db, person)
    again = await claim_order(db)
    assert (again.message.id, again.attempt) == (third, 1)
    last = await settle(db, again, replace(ACCEPTED, provider_id="wamid.third"))
    assert last is not None
    assert (last.message.id, last.attempt) == (first, 2)


# ---------------------------------------------------------------- leases


async def test_sender_that_vanished_leaves_a_doubt_never_a_resend(db: Database) -> None:
    """What was marked SENDING at the crash waits for its status; what was queued is simply due."""
    ada, bob = await enroll(db, ADA), await enroll(db, BOB)
    marked, queued = await put(db, ada), await put(db, bob)
    for lease in await claim_lanes(db):
        if ada in lease.key:
            await mark(db, lease)
    await db.restart()
    assert await db.store.recovery.requeue_stale_sending_messages() == [marked]
    assert await db.store.recovery.requeue_stale_sending_messages() == []
    assert await status(db, marked) is MessageStatus.IN_DOUBT
    assert (await claim_order(db)).message.id == queued


async def test_given_back_while_on_the_wire_is_in_doubt(db: Database) -> None:
    """A drained sender's unanswered request is not taken back."""
    ada, bob = await enroll(db, ADA), await enroll(db, BOB)
    marked, queued = await put(db, ada), await put(db, bob)
    for lease in await claim_lanes(db):
        if ada in lease.key:
            await mark(db, lease)
    assert await db.store.leases.give_back(db.worker) == 2
    assert await status(db, marked) is MessageStatus.IN_DOUBT
    assert (await claim_order(db)).message.id == queued


async def test_stale_holder_can_mark_and_record_nothing_but_an_acceptance(db: Database) -> None:
    """A sender that lost its lane learns it; that its message was accepted is true all the same."""
    person = await enroll(db)
    message_id = await put(db, person)
    order = await claim_order(db)
    db.clock.advance(LEASE_SECONDS)
    [stolen] = (await db.store.outbox.claim(db.claim(worker="other"))).items
    with pytest.raises(LeaseLostError):
        await settle(db, order, REFUSED)
    assert await status(db, message_id) is MessageStatus.SENDING
    assert await mark(db, stolen) is None
    assert await status(db, message_id) is MessageStatus.IN_DOUBT
    with pytest.raises(LeaseLostError):
        await mark(db, order.lease)
    with pytest.raises(LeaseLostError):
        await settle(db, order, REFUSED)
    assert await status(db, message_id) is MessageStatus.IN_DOUBT
    with pytest.raises(LeaseLostError):
        await settle(db, order, ACCEPTED)
    assert await status(db, message_id) is MessageStatus.SENT
    assert await nothing_due(db) is None


async def test_call_whose_answer_was_lost_gives_the_same_order_again(db: Database) -> None:
    """Whoever repeats a mark or a record gets what the first one gave; no attempt counts twice, nothing is in doubt."""
    person = await enroll(db)
    for text in ("one", "two"):
        await put(db, person, text)
    [lease] = await claim_lanes(db)
    marked = [await mark(db, lease) for _ in range(2)]
    assert marked[0] is not None
    assert marked[0] == marked[1]
    recorded = [await record(db, marked[0], ACCEPTED, LEASE_SECONDS) for _ in range(2)]
    assert recorded[0] is not None
    assert recorded[0] == recorded[1]
    assert [order.message.content.body for order in (marked[0], recorded[0])] == ["one", "two"]
    assert attempts(db, marked[0].message.id) == [(1, "sent")]
    assert attempts(db, recorded[0].message.id) == [(1, "sending")]


async def test_expired_message_never_leaves(db: Database) -> None:
    """The last look before sending sees that its time is over."""
    person = await enroll(db)
    message_id = await put(db, person, expires_at=db.clock.now() + timedelta(seconds=5))
    db.clock.advance(5.0)
    [lease] = await claim_lanes(db)
    assert await mark(db, lease) is None
    assert await status(db, message_id) is MessageStatus.EXPIRED


async def test_nothing_leaves_to_someone_who_withdrew(db: Database) -> None:
    """What was queued before is canceled at the mark, what comes after from the start."""
    person = await enroll(db)
    before = await put(db, person)
    db.change("UPDATE conversation_participants SET status = 'withdrawn'")
    after = await put(db, person)
    [lease] = await claim_lanes(db)
    assert await mark(db, lease) is None
    assert [await status(db, before), await status(db, after)] == [MessageStatus.CANCELED] * 2


async def test_released_lane_goes_on_elsewhere(db: Database) -> None:
    """A sender that drains records its result and marks nothing more."""
    person = await enroll(db)
    _, second = await put(db, person), await put(db, person)
    assert await record(db, await claim_order(db), ACCEPTED, None) is None
    assert await status(db, second) is MessageStatus.QUEUED
    assert (await claim_order(db)).message.id == second


# ---------------------------------------------------------------- dedupe and flows


async def test_dedupe_key_holds_whatever_the_status_for_thirty_days(db: Database) -> None:
    """A failed message is not enqueued again by its key; a month later it may be."""
    person = await enroll(db)
    message_id = await put(db, person, dedupe_key="k")
    await settle(db, await claim_order(db), REFUSED)
    again, created = await db.store.outbox.enqueue(message(db, person, dedupe_key="k"))
    assert (again.id, created) == (message_id, False)
    db.clock.advance(30 * 86400)
    _, created = await db.store.outbox.enqueue(message(db, person, dedupe_key="k"))
    assert created


async def test_flow_that_waits_is_told_once_that_its_message_was_sent(db: Database) -> None:
    """Whichever commit first knows appends the event: the status here, not the answer after it."""
    person = await enroll(db)
    message_id = await put(db, person, flow_type="echo")
    order = await claim_order(db)
    await db.store.inbound.ingest(batch(receipt(MessageStatus.DELIVERED, reference=(message_id, 1))), None)
    await settle(db, order, ACCEPTED)
    [delivery] = (await db.store.mailboxes.claim(db.claim())).items
    assert delivery.event.event == MessageSent(flow_type="echo", message_id=message_id, sent_at=db.clock.now())
    assert db.rows("SELECT count(*) FROM mailbox_events") == [(1,)]


async def test_flow_that_waits_is_told_that_its_message_failed(db: Database) -> None:
    """It hears why."""
    person = await enroll(db)
    message_id = await put(db, person, flow_type="echo")
    await settle(db, await claim_order(db), REFUSED)
    [delivery] = (await db.store.mailboxes.claim(db.claim())).items
    assert delivery.event.event == MessageFailed(
        flow_type="echo", message_id=message_id, error="100: Invalid parameter"
    )


async def test_message_to_nobody_is_refused(db: Database) -> None:
    """Someone unknown, or without an address on the channel, cannot be written to."""
    person = await enroll(db)
    with pytest.raises(NotFoundError):
        await db.store.outbox.enqueue(message(db, person, channel="pigeon"))
    with pytest.raises(NotFoundError):
        await db.store.outbox.get(MessageId("nope"))


@pytest.mark.parametrize("together", [True, False])
async def test_provider_that_gives_an_id_twice_stops_nobody(db: Database, together: bool) -> None:
    """Both messages were sent; statuses with our own id still reach each, those without it the first."""
    ids = [await put(db, await enroll(db, number)) for number in (ADA, BOB)]
    leases = await claim_lanes(db)
    orders = [order for order in await db.store.outbox.mark_sending(leases, seconds=LEASE_SECONDS) if order is not None]
    records = [SendRecord(order, ACCEPTED, LEASE_SECONDS) for order in orders if not isinstance(order, LeaseLostError)]
    assert len(records) == 2
    for some in [records] if together else [records[:1], records[1:]]:
        assert await db.store.outbox.record(some) == [None] * len(some)
    assert [await status(db, message_id) for message_id in ids] == [MessageStatus.SENT] * 2
    named = db.rows("SELECT count(*) FROM outbox_attempts WHERE provider_id = ?", ACCEPTED.provider_id)
    assert named == [(1,)]
    for message_id in ids:
        read = receipt(MessageStatus.READ, provider_id=ACCEPTED.provider_id or "", reference=(message_id, 1))
        db.change("DELETE FROM inbound_dedup")
        assert (await db.store.inbound.ingest(batch(read), None)).stored == 1
    assert [await status(db, message_id) for message_id in ids] == [MessageStatus.READ] * 2
