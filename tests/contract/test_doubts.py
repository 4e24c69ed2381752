"""Messages in doubt, and the statuses that settle them: never a blind resend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.messages import InDoubtPolicy, MessageStatus, Settlement, Verdict
from tests.support.database import RULES
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
    from tests.support.database import Database


# ---------------------------------------------------------------- doubt


async def test_message_in_doubt_waits_and_is_resent_by_policy(db: Database) -> None:
    """Without a status within the wait, and only then, it is sent again."""
    person = await enroll(db)
    message_id = await put(db, person)
    await settle(db, await claim_order(db), DOUBTFUL)
    assert await status(db, message_id) is MessageStatus.IN_DOUBT
    assert await nothing_due(db) == RULES.wait
    db.clock.advance(RULES.wait)
    order = await claim_order(db)
    assert (order.message.id, order.reference) == (message_id, f"{message_id}:2")
    assert attempts(db, message_id) == [(1, "dropped"), (2, "sending")]


async def test_status_settles_a_doubt_without_a_resend(db: Database) -> None:
    """A status that carries our id proves that it was sent; the lane goes on at once."""
    person = await enroll(db)
    first, second = await put(db, person), await put(db, person)
    await settle(db, await claim_order(db), DOUBTFUL)
    await db.store.inbound.ingest(batch(receipt(MessageStatus.DELIVERED, reference=(first, 1))), None)
    settled = await db.store.outbox.get(first)
    assert (settled.status, settled.provider_message_id) == (MessageStatus.DELIVERED, "wamid.out")
    order = await claim_order(db)
    assert order.message.id == second


async def test_status_without_our_id_settles_no_doubt(db: Database) -> None:
    """Somebody else's message with the same fate proves nothing; the receipt is kept."""
    person = await enroll(db)
    message_id = await put(db, person)
    await settle(db, await claim_order(db), DOUBTFUL)
    await db.store.inbound.ingest(batch(receipt(MessageStatus.SENT, provider_id="wamid.unknown")), None)
    assert await status(db, message_id) is MessageStatus.IN_DOUBT
    assert db.rows("SELECT message_id, provider_message_id FROM receipts") == [(None, "wamid.unknown")]


async def test_failed_status_settles_a_doubt_as_failed(db: Database) -> None:
    """The only attempt failed, so the message did."""
    person = await enroll(db)
    message_id = await put(db, person)
    await settle(db, await claim_order(db), DOUBTFUL)
    failed = receipt(MessageStatus.FAILED, reference=(message_id, 1), error="131026: undeliverable")
    await db.store.inbound.ingest(batch(failed), None)
    after = await db.store.outbox.get(message_id)
    assert (after.status, after.last_error) == (MessageStatus.FAILED, "131026: undeliverable")
    assert await nothing_due(db) is None


async def test_doubt_is_dropped_by_policy_and_lifted_by_a_late_status(db: Database) -> None:
    """Dropped is failed; a status that still comes knows better."""
    person = await enroll(db)
    message_id = await put(db, person, in_doubt_policy=InDoubtPolicy.DROP)
    await settle(db, await claim_order(db), DOUBTFUL)
    db.clock.advance(RULES.wait)
    [lease] = await claim_lanes(db)
    assert await mark(db, lease) is None
    dropped = await db.store.outbox.get(message_id)
    assert dropped.status is MessageStatus.FAILED
    assert "dropped" in (dropped.last_error or "")
    await db.store.inbound.ingest(batch(receipt(MessageStatus.READ, reference=(message_id, 1))), None)
    assert await status(db, message_id) is MessageStatus.READ


async def test_held_doubt_leaves_the_lane_to_the_others(db: Database) -> None:
    """Hold waits for an operator, not the recipient's other messages."""
    person = await enroll(db)
    first, second = await put(db, person, in_doubt_policy=InDoubtPolicy.HOLD), await put(db, person)
    await settle(db, await claim_order(db), DOUBTFUL)
    db.clock.advance(RULES.wait)
    order = await claim_order(db)
    assert order.message.id == second
    assert await status(db, first) is MessageStatus.IN_DOUBT
    await db.store.inbound.ingest(batch(receipt(MessageStatus.SENT, reference=(first, 1))), None)
    assert await status(db, first) is MessageStatus.SENT


async def test_doubt_is_not_resent_to_someone_who_withdrew(db: Database) -> None:
    """After STOP nothing leaves any more, not even what may not have arrived."""
    person = await enroll(db)
    message_id = await put(db, person)
    await settle(db, await claim_order(db), DOUBTFUL)
    db.change("UPDATE conversation_participants SET status = 'withdrawn'")
    db.clock.advance(RULES.wait)
    [lease] = await claim_lanes(db)
    assert await mark(db, lease) is None
    assert await status(db, message_id) is MessageStatus.FAILED


async def test_message_is_failed_only_when_all_its_attempts_are(db: Database) -> None:
    """The second attempt fails; the first, long given up, turns out to have arrived."""
    person = await enroll(db)
    message_id = await put(db, person)
    await settle(db, await claim_order(db), DOUBTFUL)
    db.clock.advance(RULES.wait)
    await settle(db, await claim_order(db), REFUSED)
    assert await status(db, message_id) is MessageStatus.FAILED
    await db.store.inbound.ingest(batch(receipt(MessageStatus.DELIVERED, reference=(message_id, 1))), None)
    assert await status(db, message_id) is MessageStatus.DELIVERED


async def test_late_status_of_the_first_attempt_stops_the_second_from_being_repeated(db: Database) -> None:
    """While the resend is on its way, the first proves to have arrived: whatever the resend comes to, it is sent."""
    person = await enroll(db)
    message_id = await put(db, person)
    await settle(db, await claim_order(db), DOUBTFUL)
    db.clock.advance(RULES.wait)
    order = await claim_order(db)
    late = receipt(MessageStatus.SENT, provider_id="wamid.first", reference=(message_id, 1))
    await db.store.inbound.ingest(batch(late), None)
    unsent = Settlement(verdict=Verdict.UNSENT, error="ConnectError", delay=0.0)
    assert await settle(db, order, unsent) is None
    assert await status(db, message_id) is MessageStatus.SENT
    assert await nothing_due(db) is None


async def test_wait_starts_anew_when_statuses_can_arrive_again(db: Database) -> None:
    """Time in which nobody could have been told does not count."""
    person = await enroll(db)
    await put(db, person)
    await settle(db, await claim_order(db), DOUBTFUL)
    db.clock.advance(RULES.wait - 1)
    await db.restart()
    await db.repair()
    assert await db.store.recovery.restart_doubts() == 1
    assert await nothing_due(db) == RULES.wait


# ---------------------------------------------------------------- statuses


async def test_status_before_the_answer_is_never_undone(db: Database) -> None:
    """The webhook is faster than the response: delivered stays delivered."""
    person = await enroll(db)
    first, second = await put(db, person), await put(db, person)
    order = await claim_order(db)
    await db.store.inbound.ingest(batch(receipt(MessageStatus.DELIVERED, reference=(first, 1))), None)
    assert await claim_lanes(db) == []
    following = await settle(db, order, ACCEPTED)
    assert await status(db, first) is MessageStatus.DELIVERED
    assert following is not None
    assert following.message.id == second


async def test_status_before_a_lost_answer_settles_it(db: Database) -> None:
    """The status came, then the connection broke: there is no doubt to wait for."""
    person = await enroll(db)
    message_id = await put(db, person)
    order = await claim_order(db)
    await db.store.inbound.ingest(batch(receipt(MessageStatus.SENT, reference=(message_id, 1))), None)
    assert await settle(db, order, DOUBTFUL) is None
    assert (await status(db, message_id), attempts(db, message_id)) == (MessageStatus.SENT, [(1, "sent")])


async def test_status_before_its_id_is_known_is_parked_and_joined(db: Database) -> None:
    """Without callback data, a status waits for the answer that says whose it is."""
    person = await enroll(db)
    message_id = await put(db, person)
    order = await claim_order(db)
    await db.store.inbound.ingest(batch(receipt(MessageStatus.DELIVERED)), None)
    assert await status(db, message_id) is MessageStatus.SENDING
    await settle(db, order, ACCEPTED)
    assert await status(db, message_id) is MessageStatus.DELIVERED
    assert db.rows("SELECT message_id, attempt FROM receipts") == [(message_id, 1)]
    assert db.rows("SELECT count(*) FROM parked_updates") == [(0,)]


async def test_provider_id_is_the_first_that_was_told(db: Database) -> None:
    """A status with our reference under another id moves the message, and renames nothing."""
    person = await enroll(db)
    message_id = await put(db, person)
    await settle(db, await claim_order(db), ACCEPTED)
    other = receipt(MessageStatus.READ, provider_id="wamid.other", reference=(message_id, 1))
    await db.store.inbound.ingest(batch(other), None)
    assert await status(db, message_id) is MessageStatus.READ
    assert db.rows("SELECT provider_id FROM outbox_attempts") == [("wamid.out",)]
    assert (await db.store.outbox.get(message_id)).provider_message_id == "wamid.out"


async def test_statuses_only_move_forward_in_any_order(db: Database) -> None:
    """Read, then sent, failed, delivered: it stays read; every receipt is kept."""
    person = await enroll(db)
    message_id = await put(db, person)
    await settle(db, await claim_order(db), ACCEPTED)
    for late in (MessageStatus.READ, MessageStatus.SENT, MessageStatus.FAILED, MessageStatus.DELIVERED):
        await db.store.inbound.ingest(batch(receipt(late)), None)
    assert await status(db, message_id) is MessageStatus.READ
    assert db.rows("SELECT count(*) FROM receipts WHERE message_id = ?", message_id) == [(4,)]


async def test_delivered_after_failed_lifts_the_message(db: Database) -> None:
    """Providers do report it in this order."""
    person = await enroll(db)
    message_id = await put(db, person)
    await settle(db, await claim_order(db), ACCEPTED)
    for late in (MessageStatus.FAILED, MessageStatus.DELIVERED):
        await db.store.inbound.ingest(batch(receipt(late)), None)
    assert await status(db, message_id) is MessageStatus.DELIVERED


async def test_repeated_status_is_one_receipt(db: Database) -> None:
    """The provider repeats itself; we do not."""
    person = await enroll(db)
    await put(db, person)
    await settle(db, await claim_order(db), ACCEPTED)
    for _ in range(3):
        await db.store.inbound.ingest(batch(receipt(MessageStatus.DELIVERED)), None)
    assert db.rows("SELECT count(*) FROM receipts") == [(1,)]
