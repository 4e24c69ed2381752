"""Erasing people: nothing of them is left, whoever is busy with them meanwhile, and nobody else is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from promptpipe.model.decisions import Decision, Say, StateChange, Wake
from promptpipe.model.errors import LeaseLostError, NotFoundError
from promptpipe.model.ids import JobId, MessageId, ScheduleId
from promptpipe.model.jobs import Ending, Fire, JobFailure, NewJob, Retry
from promptpipe.model.listing import PageRequest
from promptpipe.model.messages import MessageStatus, Settlement, Text, Verdict
from promptpipe.model.recurrence import Recurrence
from promptpipe.model.schedules import NewSchedule
from tests.support.database import LEASE_SECONDS
from tests.support.deciding import decide
from tests.support.people import ADA, BOB, ENROLLMENT, batch, enroll, inbound, phone, receipt
from tests.support.sending import ACCEPTED, claim_lanes, claim_order, mark, put, record, settle

if TYPE_CHECKING:
    from promptpipe.model.ids import ParticipantId
    from tests.support.database import Database

SECRET = "a secret of theirs"


def traces(db: Database, *words: str) -> dict[str, int]:
    """Return how many rows of each table contain one of *words*."""
    found = {}
    for table in db.tables():
        rows = [repr(row) + repr([bytes(it) for it in row if isinstance(it, memoryview)]) for row in _rows(db, table)]
        count = sum(any(word in row for word in words) for row in rows)
        if count:
            found[table] = count
    return found


def _rows(db: Database, table: str) -> list[tuple[object, ...]]:
    return db.rows(f"SELECT * FROM {table}")


async def tell(db: Database, text: str, sender: str = ADA, wamid: str | None = None) -> None:
    raw = f'{{"from": "{sender}", "text": "{text}"}}'.encode()
    await db.store.inbound.ingest(batch(inbound(text, sender, wamid, raw=raw)), ENROLLMENT)


async def live(db: Database, number: str) -> ParticipantId:
    """Return somebody who has left traces everywhere, before they were known and after."""
    stranger = inbound(SECRET, number, raw=SECRET.encode())
    await db.store.inbound.ingest(batch(stranger), None)
    person = await enroll(db, number)
    # Handled: state, timer, reply. Failed: aside. Waiting: the rest.
    for text in ("one", "poison", "two", "three"):
        await tell(db, f"{text}: {SECRET}", number)
    [delivery] = (await db.store.mailboxes.claim(db.claim())).items
    decision = Decision(
        state=StateChange("echo", "ACTIVE", {"heard": SECRET}, 1),
        say=(Say(id=MessageId(db.new_id()), content=Text(SECRET), awaited_by="echo"),),
        wake=(Wake(id=JobId(db.new_id()), kind="t", key=f"{person}/k", at=db.clock.now(), payload={"about": SECRET}),),
    )
    poison = await decide(db, delivery, decision, next_within=LEASE_SECONDS)
    assert poison is not None
    aside = {"error": SECRET, "delay": 0.0, "blocked": 9.0, "limit": 9.0}
    assert await db.store.mailboxes.retry(poison.lease, poison.event.id, **aside)  # type: ignore[arg-type]
    # Sent, with statuses; on its way; waiting; postponed.
    order = await claim_order(db)
    reference = (order.message.id, 1)
    await settle(db, order, Settlement(verdict=Verdict.ACCEPTED, provider_id=f"wamid.{number}"))
    delivered = receipt(MessageStatus.DELIVERED, reference=reference, error=SECRET)
    await db.store.inbound.ingest(batch(delivered), None)
    for text in ("sent", "waits"):
        await put(db, person, f"{text}: {SECRET}")
    # A timer that failed once, one that fired, one that waits.
    [leased] = (await db.store.jobs.claim(db.claim())).items
    failure = JobFailure(type="ValueError", message=SECRET)
    await db.store.jobs.finish([Ending(leased.lease, Retry(0.0, failure))])
    [leased] = (await db.store.jobs.claim(db.claim())).items
    await db.store.jobs.finish([Ending(leased.lease, Fire())])
    later = NewJob(id=JobId(db.new_id()), kind="t", run_at=db.clock.now(), participant_id=person, payload={"a": SECRET})
    await db.store.jobs.enqueue(later)
    rule = Recurrence(hour=13, minute=0)
    await db.store.schedules.create(
        NewSchedule(
            id=ScheduleId(db.new_id()), kind="t", recurrence=rule, participant_id=person, payload={"say": SECRET}
        )
    )
    return person


async def test_nothing_of_them_is_left(db: Database) -> None:
    """But ids, theirs and their messages', as tombstones; and the marks by which webhooks that come again are known."""
    person = await live(db, ADA)
    before = traces(db, person, ADA, SECRET)
    everywhere = {
        "conversation_participants",
        "flow_states",
        "job_errors",
        "job_history",
        "jobs",
        "lanes",
        "mailbox_events",
        "outbox_attempts",
        "outbox_messages",
        "participant_addresses",
        "receipts",
        "registered_hooks",
        "responses",
        "schedules",
    }
    assert set(before) == everywhere
    await db.store.participants.erase(person)
    assert traces(db, person, ADA, SECRET) == {"tombstones": 1}
    with pytest.raises(NotFoundError):
        await db.store.participants.get(person)
    assert (await db.store.mailboxes.claim(db.claim())).items == []
    assert await claim_lanes(db) == []
    assert (await db.store.jobs.claim(db.claim())).items == []


async def test_others_keep_what_is_theirs(db: Database) -> None:
    """Every row."""
    bob = await live(db, BOB)
    db.change("UPDATE lanes SET due_at = NULL")
    db.change("DELETE FROM jobs WHERE participant_id IS NOT NULL")
    before = {table: _rows(db, table) for table in db.tables() if table != "inbound_dedup"}
    ada = await live(db, ADA)
    await db.store.participants.erase(ada)
    after = {table: _rows(db, table) for table in db.tables() if table != "inbound_dedup"}
    changed = {table for table, rows in before.items() if sorted(map(repr, rows)) != sorted(map(repr, after[table]))}
    assert changed <= {"tombstones", "sequences"}
    assert (await db.store.participants.get(bob)).id == bob


async def test_erasing_again_is_done_already(db: Database) -> None:
    """Whoever is not sure whether their call arrived makes it again; nobody is not somebody."""
    person = await enroll(db)
    for _ in range(2):
        await db.store.participants.erase(person)
    with pytest.raises(NotFoundError, match="there is no participant somebody"):
        await db.store.participants.erase("somebody")  # type: ignore[arg-type]


async def test_work_for_them_is_lost(db: Database) -> None:
    """A decision is void, and of a message on its way nothing is kept; neither harms those committed with it."""
    person, bob = await enroll(db, ADA), await enroll(db, BOB)
    await tell(db, "hello")
    [delivery] = (await db.store.mailboxes.claim(db.claim())).items
    await put(db, person)
    order = await claim_order(db)
    kept = await put(db, bob)
    [lease] = await claim_lanes(db)
    other = await mark(db, lease)
    assert other is not None
    await db.store.participants.erase(person)
    extension = await db.store.leases.extend([delivery.lease, order.lease, lease], LEASE_SECONDS)
    assert extension.lost == {delivery.lease, order.lease}
    with pytest.raises(LeaseLostError):
        await decide(db, delivery, Decision(say=(Say(id=MessageId("m"), content=Text("x")),)), next_within=None)
    for next_within in (None, LEASE_SECONDS):
        with pytest.raises(LeaseLostError):
            await record(db, order, ACCEPTED, next_within)
    assert await record(db, other, ACCEPTED, None) is None
    assert (await db.store.outbox.get(kept)).status is MessageStatus.SENT
    assert traces(db, person) == {"tombstones": 1}


async def test_status_that_comes_after_is_not_kept(db: Database) -> None:
    """It names their number; the message is known as one that was erased."""
    person = await enroll(db)
    message_id = await put(db, person)
    await settle(db, await claim_order(db), ACCEPTED)
    await db.store.participants.erase(person)
    status = receipt(MessageStatus.READ, reference=(message_id, 1))
    report = await db.store.inbound.ingest(batch(status), None)
    assert (report.stored, report.unmatched) == (0, 1)
    assert db.rows("SELECT * FROM receipts") == []


async def test_who_writes_again_is_somebody_new(db: Database) -> None:
    """But what they wrote before stays a duplicate, and brings nobody back."""
    await tell(db, "hello", wamid="wamid.1")
    [(first,)] = db.rows("SELECT id FROM conversation_participants")
    await db.store.participants.erase(first)
    await tell(db, "hello", wamid="wamid.1")
    assert db.rows("SELECT id FROM conversation_participants") == []
    await tell(db, "me again")
    second = await db.store.participants.find(phone(ADA))
    assert second.id != first
    assert (await db.store.participants.flow_state(second.id, "echo")).version == 1


async def test_message_that_was_enqueued_meanwhile_never_leaves(db: Database) -> None:
    """Whoever looked for the person before they were erased adds it after."""
    person = await enroll(db)
    await put(db, person)
    db.change("DELETE FROM conversation_participants")
    [lease] = await claim_lanes(db)
    assert await mark(db, lease) is None
    assert db.rows("SELECT status FROM outbox_messages") == [("canceled",)]


async def test_event_that_was_added_meanwhile_is_dropped(db: Database) -> None:
    """A timer of theirs, say; there is nobody to handle it for, nor anything for an operator to do."""
    await enroll(db)
    await tell(db, "hello")
    db.change("DELETE FROM conversation_participants")
    claimed = await db.store.mailboxes.claim(db.claim())
    assert (claimed.items, db.rows("SELECT * FROM mailbox_events")) == ([], [])


async def test_whoever_is_busy_with_them_comes_before_or_after(db: Database) -> None:
    """Webhooks, decisions, sends and timers at the same time, again and again: nothing of them is left over."""
    for number in range(12):
        await _erase_while_busy(db, f"+165055500{number:02}")


async def _erase_while_busy(db: Database, sender: str) -> None:
    person = await enroll(db, sender)
    await tell(db, "first", sender)
    await put(db, person)
    [delivery] = (await db.store.mailboxes.claim(db.claim())).items
    order = await claim_order(db)
    timer = NewJob(id=JobId(db.new_id()), kind="t", run_at=db.clock.now(), participant_id=person)
    await db.store.jobs.enqueue(timer)
    [leased] = (await db.store.jobs.claim(db.claim())).items

    async def lost_or_kept(call: object) -> None:
        try:
            await call  # type: ignore[misc]
        except LeaseLostError:
            return

    say = Decision(say=(Say(id=MessageId(db.new_id()), content=Text("hi")),))
    two = batch(inbound("second", sender), inbound("third", sender))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(db.store.inbound.ingest, two, None)
        nursery.start_soon(db.store.inbound.ingest, batch(inbound("fourth", sender)), None)
        nursery.start_soon(lost_or_kept, decide(db, delivery, say, next_within=LEASE_SECONDS))
        nursery.start_soon(lost_or_kept, record(db, order, ACCEPTED, LEASE_SECONDS))
        nursery.start_soon(db.store.jobs.finish, [Ending(leased.lease, Fire())])
        nursery.start_soon(db.store.participants.erase, person)
        nursery.start_soon(db.store.participants.erase, person)
    await db.store.mailboxes.claim(db.claim())  # which drops what a timer has added after
    left = traces(db, person)
    assert set(left) <= {"tombstones", "lanes"}, left
    assert await claim_lanes(db) == []


async def test_page_of_what_was_said_has_nothing_of_them(db: Database) -> None:
    """As operators see it."""
    person = await live(db, ADA)
    await db.store.participants.erase(person)
    everything = PageRequest(size=200)
    assert (await db.store.history.responses(None, everything)).items == ()
    assert (await db.store.aside.list(None, everything)).items == ()
    assert (await db.store.participants.list(None, everything)).items == ()
