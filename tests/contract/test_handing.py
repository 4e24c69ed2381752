"""What a commit makes due is leased on the spot, and handed over, where a runner of this process has room."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from promptpipe.model.decisions import Decided, Decision, Delivery, Say
from promptpipe.model.errors import LeaseLostError, NotFoundError
from promptpipe.model.events import Replied
from promptpipe.model.ids import JobId, MessageId, ParticipantId
from promptpipe.model.jobs import Ending, Fire, NewJob
from promptpipe.model.leases import Work
from promptpipe.model.messages import (
    MessageClass,
    MessageStatus,
    SendOrder,
    SendRecord,
    Settlement,
    Text,
    Verdict,
    readable,
)
from promptpipe.model.participants import ParticipantStatus, Profile
from tests.support.database import LEASE_SECONDS
from tests.support.deciding import commit, decide
from tests.support.people import ADA, BOB, ENROLLMENT, batch, enroll, inbound, phone
from tests.support.people import message as new_message

if TYPE_CHECKING:
    from tests.support.database import Database

CAROL = "+16505550000"


def offer(db: Database, work: Work, limit: int = 10, **other: object) -> None:
    """Have room for so much."""
    db.runners.offers[work] = replace(db.claim(limit), **other)  # type: ignore[arg-type]


def taken(db: Database) -> list[str]:
    """Return what was handed over, by its texts."""
    assert db.runners.unanswered == 0
    items, db.runners.taken = db.runners.taken, []
    return [text_of(item) for item in items]


def text_of(item: object) -> str:
    match item:
        case Delivery():
            events = [stored.event for stored in (item.event, *item.behind)]
            return "+".join(event.text if isinstance(event, Replied) else event.kind for event in events)
        case SendOrder():
            return readable(item.message.content)
        case other:
            raise AssertionError(other)


def say(db: Database, text: str, **other: object) -> Say:
    return Say(id=MessageId(db.new_id()), content=Text(text), **other)  # type: ignore[arg-type]


async def hear(db: Database, *texts: str, sender: str = ADA) -> None:
    await db.store.inbound.ingest(batch(*(inbound(text, sender) for text in texts)), ENROLLMENT)


async def claimed(db: Database) -> list[str]:
    return [text_of(item) for item in (await db.store.mailboxes.claim(db.claim())).items]


async def handed(db: Database, text: str = "hello") -> Delivery:
    """Return the delivery that comes with a webhook's commit."""
    offer(db, Work.MAILBOX)
    await hear(db, text)
    [delivery] = db.runners.taken
    db.runners.taken = []
    assert isinstance(delivery, Delivery)
    return delivery


async def test_event_of_an_idle_person_comes_with_its_commit(db: Database) -> None:
    """Leased and counted as if it had been claimed; nobody is woken to look for it, nobody else gets it."""
    delivery = await handed(db)
    assert (text_of(delivery), delivery.event.attempt, db.runners.woken) == ("hello", 1, [])
    assert db.rows("SELECT attempt FROM mailbox_events") == [(1,)]
    assert await claimed(db) == []
    assert await decide(db, delivery, Decision(), next_within=None) is None
    db.clock.advance(LEASE_SECONDS + 1)
    assert await claimed(db) == []


async def test_lease_ends_as_any_other(db: Database) -> None:
    """Whoever has it must extend it; when nobody does, the event is due again, and that counts as a crash."""
    delivery = await handed(db)
    db.clock.advance(LEASE_SECONDS / 2)
    await db.store.leases.extend([delivery.lease], LEASE_SECONDS)
    db.clock.advance(LEASE_SECONDS - 1)
    assert await claimed(db) == []
    db.clock.advance(2)
    [again] = (await db.store.mailboxes.claim(db.claim(depth=9))).items
    assert (again.event.attempt, again.depth) == (2, 1)


async def test_without_room_all_is_as_ever(db: Database) -> None:
    """The runner is woken, and claims."""
    await hear(db, "hello")
    assert (taken(db), db.runners.woken, await claimed(db)) == ([], [Work.MAILBOX], ["hello"])


async def test_what_waits_already_is_not_overtaken(db: Database) -> None:
    """An event behind others of the same person comes when it is its turn."""
    await hear(db, "one")
    offer(db, Work.MAILBOX)
    await hear(db, "two")
    assert taken(db) == []
    [one] = (await db.store.mailboxes.claim(db.claim())).items
    await hear(db, "three")
    assert taken(db) == []
    two = await decide(db, one, Decision(), next_within=LEASE_SECONDS)
    assert text_of(two) == "two"


async def test_no_more_than_there_is_room_for(db: Database) -> None:
    """Those who wrote first; for the others the runner is woken."""
    for sender in (ADA, BOB, CAROL):
        await enroll(db, sender)
    db.runners.woken.clear()
    offer(db, Work.MAILBOX, limit=2)
    await db.store.inbound.ingest(
        batch(inbound("b", BOB), inbound("b again", BOB), inbound("c", CAROL), inbound("a", ADA)), ENROLLMENT
    )
    assert sorted(taken(db)) == ["b", "c"]
    assert (db.runners.woken, await claimed(db)) == ([Work.MAILBOX], ["a"])


async def test_room_is_counted_over_all_of_a_commit(db: Database) -> None:
    """Also when several statements of it append, as for somebody known and somebody new."""
    await enroll(db, ADA)
    offer(db, Work.MAILBOX, limit=1)
    await db.store.inbound.ingest(batch(inbound("a", ADA), inbound("b", BOB)), ENROLLMENT)
    assert (taken(db), await claimed(db)) == (["a"], ["b"])


async def test_as_deep_as_is_asked_for(db: Database) -> None:
    """Several events that come at once are handed over at once."""
    person = await enroll(db)
    offer(db, Work.MAILBOX, depth=2)
    await hear(db, "one", "two", "three")
    assert taken(db) == ["one+two"]
    assert db.rows("SELECT attempt FROM mailbox_events WHERE participant_id = ? ORDER BY seq", person) == [
        (1,),
        (0,),
        (0,),
    ]


async def test_nothing_of_what_this_process_holds(db: Database) -> None:
    """Its task may not know yet that it has lost its lease."""
    person = await enroll(db)
    offer(db, Work.MAILBOX, held=[person])
    await hear(db, "hello")
    assert (taken(db), await claimed(db)) == ([], ["hello"])


async def test_what_does_not_commit_hands_nothing_over(db: Database) -> None:
    """The room is free again."""
    offer(db, Work.MAILBOX)
    offer(db, Work.OUTBOX)
    with pytest.raises(NotFoundError):
        await db.store.orders.start(ParticipantId("nobody"), ENROLLMENT)
    assert taken(db) == []


async def test_enrolled_and_fired_timers_too(db: Database) -> None:
    """Whatever puts an event into an empty mailbox."""
    offer(db, Work.MAILBOX)
    person = (await db.store.participants.enroll(phone(ADA), Profile(), ENROLLMENT)).id
    [enrolled] = db.runners.taken
    assert taken(db) == ["enrolled"]
    await decide(db, enrolled, Decision(), next_within=None)
    job = NewJob(id=JobId("j"), kind="tick", run_at=db.clock.now(), participant_id=person)
    await db.store.jobs.enqueue(job)
    [leased] = (await db.store.jobs.claim(db.claim())).items
    await db.store.jobs.finish([Ending(leased.lease, Fire())])
    assert taken(db) == ["timer_fired"]


async def test_reply_leaves_with_the_decision(db: Database) -> None:
    """It is marked as the sender would have marked it; its result is recorded, and the lane goes on."""
    delivery = await handed(db)
    offer(db, Work.OUTBOX)
    await decide(db, delivery, Decision(say=(say(db, "one"), say(db, "two"))), next_within=None)
    [order] = db.runners.taken
    assert taken(db) == ["one"]
    assert (order.attempt, order.message.status) == (1, MessageStatus.SENDING)
    assert db.rows("SELECT n, fence, state FROM outbox_attempts") == [(1, order.lease.fence, "sending")]
    assert Work.OUTBOX not in db.runners.woken
    accepted = Settlement(verdict=Verdict.ACCEPTED, provider_id="wamid.1")
    [following] = await db.store.outbox.record([SendRecord(order, accepted, LEASE_SECONDS)])
    assert text_of(following) == "two"


async def test_flow_that_waits_for_a_message_hears_of_it_at_once(db: Database) -> None:
    """The commit that records the sending brings the event along."""
    delivery = await handed(db)
    offer(db, Work.OUTBOX)
    await decide(db, delivery, Decision(say=(say(db, "one", awaited_by="echo"),)), next_within=None)
    [order] = db.runners.taken
    assert taken(db) == ["one"]
    accepted = Settlement(verdict=Verdict.ACCEPTED, provider_id="wamid.1")
    assert await db.store.outbox.record([SendRecord(order, accepted, LEASE_SECONDS)]) == [None]
    assert taken(db) == ["message_sent"]


async def test_what_must_not_leave_stays(db: Database) -> None:
    """A message that has expired, one to somebody who has withdrawn, and any while the channel is paused."""
    delivery = await handed(db)
    offer(db, Work.OUTBOX)
    expired = say(db, "too late", expires_at=db.clock.now() - timedelta(seconds=1))
    following = await decide(db, delivery, Decision(say=(expired, say(db, "in time"))), next_within=None)
    [order] = db.runners.taken
    assert (following, taken(db)) == (None, ["in time"])
    refused = Settlement(verdict=Verdict.PAUSE_CHANNEL, error="190", delay=300.0)
    await db.store.outbox.record([SendRecord(order, refused, LEASE_SECONDS)])

    other = await enroll(db, BOB)
    db.runners.taken = []
    await hear(db, "hello", sender=BOB)
    [delivery] = db.runners.taken
    db.runners.taken = []
    await decide(db, delivery, Decision(say=(say(db, "paused"),)), next_within=None)
    assert taken(db) == []
    db.clock.advance(301)
    assert len((await db.store.outbox.claim(db.claim())).items) == 2

    await db.store.participants.update(other, {}, ParticipantStatus.WITHDRAWN)
    await hear(db, "bye", sender=BOB)
    [delivery] = db.runners.taken
    db.runners.taken = []
    await decide(db, delivery, Decision(say=(say(db, "never"),)), next_within=None)
    assert taken(db) == []


async def test_pace_is_kept(db: Database) -> None:
    """Neither a lane that backs off is due sooner for a second message, nor one that is empty for its first."""
    person = await enroll(db)
    await db.store.outbox.enqueue(new_message(db, person, "first"))
    [lease] = (await db.store.outbox.claim(db.claim())).items
    [order] = await db.store.outbox.mark_sending([lease], seconds=LEASE_SECONDS)
    assert isinstance(order, SendOrder)
    slow = Settlement(verdict=Verdict.SLOW_RECIPIENT, error="131056", delay=60.0)
    await db.store.outbox.record([SendRecord(order, slow, LEASE_SECONDS)])
    delivery = await handed(db)
    offer(db, Work.OUTBOX)
    broadcast = say(db, "third", message_class=MessageClass.BROADCAST)
    await decide(db, delivery, Decision(say=(say(db, "second"), broadcast)), next_within=None)
    assert taken(db) == []
    db.clock.advance(59)
    assert (await db.store.outbox.claim(db.claim())).items == []
    db.clock.advance(2)
    assert len((await db.store.outbox.claim(db.claim())).items) == 2
    assert db.rows("SELECT crashes FROM lanes WHERE kind = 'outbox'") == [(0,), (0,)]


@pytest.mark.parametrize("released", [False, True], ids=["held", "released"])
async def test_answer_that_was_lost_brings_the_orders_again(db: Database, released: bool) -> None:
    """They have not left, for nobody has got them; without that they would be in doubt when their leases end."""
    delivery = await handed(db)
    if not released:
        await hear(db, "more")
    offer(db, Work.OUTBOX)
    decided = Decided(delivery, Decision(say=(say(db, "one"), say(db, "two"))), LEASE_SECONDS)

    async def repeat() -> None:
        [answer] = await db.store.mailboxes.decide([decided])
        assert isinstance(answer, LeaseLostError if released else Delivery)

    await commit(db, decided)
    [lost] = db.runners.taken
    assert taken(db) == ["one"]
    await repeat()
    [order] = db.runners.taken
    assert (taken(db), order) == (["one"], replace(lost, message=order.message))
    assert order.message.attempts == 1
    offer(db, Work.OUTBOX, held=[order.lease.key])
    await repeat()
    assert taken(db) == []


async def test_vanished_worker_leaves_what_it_had_taken_in_doubt(db: Database) -> None:
    """Once it was marked, nobody knows whether it has left."""
    delivery = await handed(db)
    offer(db, Work.OUTBOX)
    await decide(db, delivery, Decision(say=(say(db, "one"),)), next_within=None)
    [order] = db.runners.taken
    await db.restart()
    await db.repair()
    assert (await db.store.outbox.get(order.message.id)).status is MessageStatus.IN_DOUBT
