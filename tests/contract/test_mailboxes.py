"""Mailboxes: one conversation, one thread; all or nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from promptpipe.model.decisions import Decision, Hook, Say, StateChange, Wake
from promptpipe.model.errors import LeaseLostError, NotFoundError, VersionConflictError
from promptpipe.model.events import Replied
from promptpipe.model.ids import JobId, MessageId, ParticipantId
from promptpipe.model.jobs import Ending, Fire, JobStatus, NewJob
from promptpipe.model.leases import Work
from promptpipe.model.messages import MessageStatus, Text
from tests.support.database import LEASE_SECONDS
from tests.support.deciding import decide
from tests.support.people import ADA, BOB, ENROLLMENT, batch, enroll, inbound

if TYPE_CHECKING:
    from promptpipe.model.decisions import Delivery
    from tests.support.database import Database


async def tell(db: Database, *texts: str, sender: str = ADA) -> None:
    for text in texts:
        await db.store.inbound.ingest(batch(inbound(text, sender)), ENROLLMENT)


async def claim(db: Database) -> list[Delivery]:
    return list((await db.store.mailboxes.claim(db.claim())).items)


async def claim_one(db: Database) -> Delivery:
    [delivery] = await claim(db)
    return delivery


def text_of(delivery: Delivery | None) -> str:
    assert delivery is not None
    assert isinstance(delivery.event.event, Replied)
    return delivery.event.event.text


def change(delivery: Delivery, **data: object) -> StateChange:
    state = delivery.states["echo"]
    return StateChange("echo", "ACTIVE", data, state.version)


def say(db: Database, text: str) -> Say:
    return Say(id=MessageId(db.new_id()), content=Text(text))


async def retry(db: Database, delivery: Delivery, *, delay: float = 5.0, blocked: float = 5.0) -> bool:
    return await db.store.mailboxes.retry(
        delivery.lease, delivery.event.id, error="boom", delay=delay, blocked=blocked, limit=120.0
    )


async def test_events_are_handed_out_one_at_a_time_in_order(db: Database) -> None:
    """While one is handled nobody gets the next, however many claim; the commit hands it out."""
    await tell(db, "one", "two", "three")
    first = await claim_one(db)
    assert (text_of(first), first.event.attempt) == ("one", 1)
    assert await claim(db) == []
    second = await decide(db, first, Decision(), next_within=LEASE_SECONDS)
    assert text_of(second) == "two"
    assert second is not None
    third = await decide(db, second, Decision(), next_within=LEASE_SECONDS)
    assert third is not None
    assert await decide(db, third, Decision(), next_within=LEASE_SECONDS) is None
    assert await claim(db) == []


async def test_released_mailbox_is_due_for_its_next_event(db: Database) -> None:
    """A worker that goes leaves the rest to the others, at once."""
    await tell(db, "one", "two")
    first = await claim_one(db)
    assert await decide(db, first, Decision(), next_within=None) is None
    assert text_of(await claim_one(db)) == "two"


async def test_delivery_has_all_that_handling_needs(db: Database) -> None:
    """The person, the states of their flows and the response handlers come with the event."""
    await tell(db, "hi")
    delivery = await claim_one(db)
    assert delivery.participant.addresses[0].value == ADA
    assert (delivery.states["echo"].version, delivery.states["echo"].data) == (1, {})
    assert [hook.handler_type for hook in delivery.hooks] == ["echo"]


async def test_decision_is_applied_as_a_whole(db: Database) -> None:
    """State, timers and messages appear with the event's removal, in one commit."""
    await tell(db, "hi")
    delivery = await claim_one(db)
    decision = Decision(
        state=change(delivery, n=1),
        say=(say(db, "a"), say(db, "b")),
        wake=(
            Wake(
                id=JobId(db.new_id()),
                kind="reminder",
                key="r",
                at=db.clock.now() + timedelta(hours=1),
                payload={"x": 1},
            ),
        ),
    )
    await decide(db, delivery, decision, next_within=None)
    person = delivery.participant.id
    state = await db.store.participants.flow_state(person, "echo")
    assert (state.version, state.data) == (2, {"n": 1})
    job = await db.store.jobs.get(decision.wake[0].id)
    assert (job.participant_id, job.dedupe_key, job.payload) == (person, "r", {"x": 1})
    sent = [await db.store.outbox.get(item.id) for item in decision.say]
    assert [(item.status, item.recipient.value) for item in sent] == [(MessageStatus.QUEUED, ADA)] * 2
    assert db.rows("SELECT count(*) FROM mailbox_events") == [(0,)]
    assert db.rows("SELECT processed_at IS NOT NULL FROM responses") == [(1,)]


async def test_decision_that_cannot_be_applied_changes_nothing(db: Database) -> None:
    """A version conflict leaves state, timers, messages and the event as they were."""
    await tell(db, "hi")
    delivery = await claim_one(db)
    db.change("UPDATE flow_states SET version = 7")
    decision = Decision(
        state=change(delivery, n=1),
        say=(say(db, "a"),),
        wake=(Wake(id=JobId("j"), kind="k", key="k", at=db.clock.now()),),
    )
    with pytest.raises(VersionConflictError):
        await decide(db, delivery, decision, next_within=None)
    tables = ("outbox_messages", "jobs", "mailbox_events")
    assert [db.rows(f"SELECT count(*) FROM {table}") for table in tables] == [[(0,)], [(0,)], [(1,)]]
    await db.store.mailboxes.give_back(delivery.lease)
    again = await claim_one(db)
    assert (again.event.id, again.event.attempt, again.states["echo"].version) == (delivery.event.id, 1, 7)


async def test_stale_holder_can_decide_nothing(db: Database) -> None:
    """A worker whose lease ran out gets a typed error for everything it tries."""
    await tell(db, "hi")
    old = await claim_one(db)
    db.clock.advance(LEASE_SECONDS)
    [new] = (await db.store.mailboxes.claim(db.claim(worker="other"))).items
    with pytest.raises(LeaseLostError):
        await decide(db, old, Decision(say=(say(db, "zombie"),)), next_within=None)
    with pytest.raises(LeaseLostError):
        await retry(db, old)
    with pytest.raises(LeaseLostError):
        await db.store.mailboxes.give_back(old.lease)
    assert (await db.store.leases.extend([old.lease], 30.0)).lost == {old.lease}
    await decide(db, new, Decision(), next_within=None)
    assert db.rows("SELECT count(*) FROM outbox_messages") == [(0,)]


async def test_decision_is_applied_once(db: Database) -> None:
    """The same decision under the same lease a second time changes nothing, and hands out what is next once more."""
    await tell(db, "one", "two")
    first = await claim_one(db)
    decision = Decision(say=(say(db, "a"),))
    await decide(db, first, decision, next_within=LEASE_SECONDS)
    second = await decide(db, first, decision, next_within=LEASE_SECONDS)
    assert second is not None
    assert text_of(second) == "two"
    assert db.rows("SELECT count(*) FROM outbox_messages") == [(1,)]
    await decide(db, second, Decision(say=(say(db, "b"),)), next_within=None)
    with pytest.raises(LeaseLostError):
        await decide(db, second, Decision(say=(say(db, "b"),)), next_within=None)
    assert db.rows("SELECT count(*) FROM outbox_messages") == [(2,)]


async def test_append_to_a_mailbox_that_backs_off_keeps_its_time(db: Database) -> None:
    """A new message does not make a failing event be tried earlier, and does not overtake it."""
    await tell(db, "poison")
    assert await retry(db, await claim_one(db), delay=5.0) is False
    await tell(db, "two")
    early = await db.store.mailboxes.claim(db.claim())
    assert (list(early.items), early.next_due_in) == ([], 5.0)
    assert (await db.store.mailboxes.claim(db.claim(sight=4.999))).next_due_in is None
    assert (await db.store.mailboxes.claim(db.claim(sight=5.0))).next_due_in == 5.0
    db.clock.advance(5.0)
    again = await claim_one(db)
    assert (text_of(again), again.event.attempt, again.event.blocked) == ("poison", 2, 5.0)


async def test_event_that_blocks_too_long_goes_aside(db: Database) -> None:
    """After two minutes in all the conversation goes on; the event is kept with its error."""
    await tell(db, "poison", "two")
    for expected in (False, False, True):
        assert await retry(db, await claim_one(db), delay=0.0, blocked=50.0) is expected
    assert text_of(await claim_one(db)) == "two"
    assert db.rows("SELECT last_error, attempt FROM mailbox_events WHERE seq IS NULL") == [("boom", 3)]


async def test_event_that_fails_too_often_goes_aside(db: Database) -> None:
    """However quickly it fails."""
    await tell(db, "poison", "two")
    db.change("UPDATE mailbox_events SET max_attempts = 2")
    assert [await retry(db, await claim_one(db), delay=0.0, blocked=0.0) for _ in range(2)] == [False, True]
    assert text_of(await claim_one(db)) == "two"


async def test_event_that_kills_its_process_goes_aside(db: Database) -> None:
    """Attempts count when handed out; once they are used up, the next event has its turn."""
    await tell(db, "killer", "two")
    db.change("UPDATE mailbox_events SET max_attempts = 2")
    for _ in range(2):
        claimed = await db.store.mailboxes.claim(db.claim())
        assert text_of([*claimed.items, claimed.suspect][0]) == "killer"
        await db.restart()
        await db.repair()
    suspect = (await db.store.mailboxes.claim(db.claim())).suspect
    assert text_of(suspect) == "two"


async def test_orderly_end_of_an_event_clears_the_suspicion(db: Database) -> None:
    """A crash before it and a crash after it are not two in a row."""
    await tell(db, "one", "two")
    await claim_one(db)
    await db.restart()
    await db.repair()
    await decide(db, await claim_one(db), Decision(), next_within=LEASE_SECONDS)
    await db.restart()
    await db.repair()
    [delivery] = (await db.store.mailboxes.claim(db.claim(suspect=False))).items
    assert text_of(delivery) == "two"


async def test_orderly_failure_clears_the_suspicion(db: Database) -> None:
    """An event that fails with a word between two crashes is no killer."""
    await tell(db, "one")
    await claim_one(db)
    await db.restart()
    await db.repair()
    await retry(db, await claim_one(db), delay=0.0)
    await claim_one(db)
    await db.restart()
    await db.repair()
    assert len((await db.store.mailboxes.claim(db.claim(suspect=False))).items) == 1


async def test_mailbox_of_a_vanished_worker_is_due_at_once(db: Database) -> None:
    """A new process does not wait for a dead one's lease, and counts the attempt."""
    await tell(db, "hi")
    await claim_one(db)
    await db.restart()
    assert await db.store.recovery.release_stale_mailboxes() == 1
    assert await db.store.recovery.release_stale_mailboxes() == 0
    assert (await claim_one(db)).event.attempt == 2


async def test_give_back_releases_mailboxes_without_counting(db: Database) -> None:
    """A drained worker's events are due at once."""
    await tell(db, "hi")
    await claim_one(db)
    assert await db.store.leases.give_back(db.worker) == 1
    assert (await claim_one(db)).event.attempt == 1


async def test_event_of_an_unknown_kind_goes_aside(db: Database) -> None:
    """What a newer version wrote does not stop the conversation on an older one."""
    await tell(db, "one", "two")
    db.change("UPDATE mailbox_events SET kind = 'from_the_future' WHERE seq = 1")
    assert text_of(await claim_one(db)) == "two"
    [(error,)] = db.rows("SELECT last_error FROM mailbox_events WHERE seq IS NULL")
    assert "from_the_future" in str(error)


async def test_mailboxes_of_many_are_claimed_together(db: Database) -> None:
    """Different people do not wait for each other."""
    await tell(db, "a", sender=ADA)
    await tell(db, "b", sender=BOB)
    assert sorted(text_of(delivery) for delivery in await claim(db)) == ["a", "b"]


async def test_ingest_wakes_the_mailbox_runner(db: Database) -> None:
    """The commit that appends an event says so."""
    await tell(db, "hi")
    assert db.runners.woken == [Work.MAILBOX]


# ---------------------------------------------------------------- timers in decisions


async def timer(db: Database, person: ParticipantId, key: str) -> JobId:
    job_id = JobId(db.new_id())
    new = NewJob(id=job_id, kind="t", run_at=db.clock.now(), dedupe_key=key, participant_id=person)
    await db.store.jobs.enqueue(new)
    return job_id


async def test_cancel_in_a_decision_ends_the_timer(db: Database) -> None:
    """A reply cancels the reminder in the commit that handles the reply."""
    person = await enroll(db)
    job_id = await timer(db, person, "r")
    await tell(db, "here I am")
    await decide(db, await claim_one(db), Decision(cancel=("r",)), next_within=None)
    assert (await db.store.jobs.get(job_id)).status is JobStatus.CANCELED


async def test_cancel_in_a_decision_removes_the_unhandled_timer_event(db: Database) -> None:
    """A reminder that fired but was not handled before the reply is not handled after it."""
    person = await enroll(db)
    await tell(db, "here I am")
    await timer(db, person, "r")
    [leased] = (await db.store.jobs.claim(db.claim())).items
    await db.store.jobs.finish([Ending(leased.lease, Fire())])
    reply = await claim_one(db)
    assert text_of(reply) == "here I am"
    assert await decide(db, reply, Decision(cancel=("r",)), next_within=LEASE_SECONDS) is None


async def test_cancel_in_a_decision_beats_a_timer_about_to_fire(db: Database) -> None:
    """The job was claimed but not fired: after the commit, firing it has no effect."""
    person = await enroll(db)
    await tell(db, "here I am")
    await timer(db, person, "r")
    [leased] = (await db.store.jobs.claim(db.claim())).items
    reply = await claim_one(db)
    assert await decide(db, reply, Decision(cancel=("r",)), next_within=LEASE_SECONDS) is None
    assert await db.store.jobs.finish([Ending(leased.lease, Fire())]) == {leased.lease}
    assert await claim(db) == []


async def test_timer_can_be_set_anew_by_the_decision_that_handles_it(db: Database) -> None:
    """The key is free in the commit that removes its event."""
    person = await enroll(db)
    await timer(db, person, "r")
    [leased] = (await db.store.jobs.claim(db.claim())).items
    await db.store.jobs.finish([Ending(leased.lease, Fire())])
    wake = Wake(id=JobId(db.new_id()), kind="t", key="r", at=db.clock.now() + timedelta(hours=1))
    await decide(db, await claim_one(db), Decision(wake=(wake,)), next_within=None)
    assert (await db.store.jobs.get(wake.id)).status is JobStatus.QUEUED


async def test_wake_replaces_the_timer_with_the_same_key(db: Database) -> None:
    """Exactly one live job stands for a key; the one before is canceled."""
    person = await enroll(db)
    old = await timer(db, person, "r")
    await tell(db, "hi")
    wake = Wake(id=JobId(db.new_id()), kind="t", key="r", at=db.clock.now() + timedelta(hours=1))
    await decide(db, await claim_one(db), Decision(wake=(wake,)), next_within=None)
    assert (await db.store.jobs.get(old)).status is JobStatus.CANCELED
    assert db.rows("SELECT id FROM jobs") == [(wake.id,)]


async def test_timer_event_that_was_set_aside_keeps_no_key_taken(db: Database) -> None:
    """A poisonous reminder does not stop the next one from being set."""
    person = await enroll(db)
    poison = await timer(db, person, "r")
    [leased] = (await db.store.jobs.claim(db.claim())).items
    await db.store.jobs.finish([Ending(leased.lease, Fire())])
    assert await retry(db, await claim_one(db), blocked=120.0)
    assert await timer(db, person, "r") != poison
    assert db.rows("SELECT count(*) FROM jobs") == [(1,)]


async def test_decision_cancels_nobody_elses_timer(db: Database) -> None:
    """A key of another participant is not ours to cancel."""
    bob = await enroll(db, BOB)
    theirs = await timer(db, bob, "r")
    await tell(db, "hi")
    await decide(db, await claim_one(db), Decision(cancel=("r",)), next_within=None)
    assert (await db.store.jobs.get(theirs)).status is JobStatus.QUEUED


async def test_response_handlers_expire_and_the_one_that_expires_first_is_asked_first(db: Database) -> None:
    """A question's handler comes before the conversation's, for as long as the question stands."""
    person = await enroll(db)
    soon = db.clock.now() + timedelta(seconds=60)
    hook = Hook(participant_id=person, handler_type="question", flow_type="echo", expires_at=soon)
    await db.store.recovery.register_hook(hook)
    await tell(db, "one", "two")
    first = await claim_one(db)
    assert [hook.handler_type for hook in first.hooks] == ["question", "echo"]
    db.clock.advance(60)
    second = await decide(db, first, Decision(), next_within=LEASE_SECONDS)
    assert second is not None
    assert [hook.handler_type for hook in second.hooks] == ["echo"]


async def test_participant_that_does_not_exist_is_not_found(db: Database) -> None:
    """Reading what is not there is an error of its own."""
    with pytest.raises(NotFoundError):
        await db.store.participants.get(ParticipantId("nobody"))
    with pytest.raises(NotFoundError):
        await db.store.participants.flow_state(ParticipantId("nobody"), "echo")
