"""Decisions about many mailboxes in one commit: each is all or nothing, and none costs another."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from promptpipe.model.decisions import Decided, Decision, Delivery, Say, StateChange, Wake
from promptpipe.model.errors import LeaseLostError, NotFoundError, VersionConflictError
from promptpipe.model.events import Replied, TimerFired
from promptpipe.model.ids import JobId, MessageId
from promptpipe.model.jobs import Ending, Fire, JobStatus, NewJob
from promptpipe.model.messages import MessageClass, Text
from tests.support.database import LEASE_SECONDS
from tests.support.people import ENROLLMENT, batch, inbound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptpipe.model.ids import ParticipantId
    from tests.support.database import Database

PEOPLE = [f"+1650555{number:04}" for number in range(6)]


async def deliveries(db: Database, *texts: str) -> list[Delivery]:
    """Let everybody write *texts* and claim what came first, in the order of `PEOPLE`."""
    for text in texts:
        for sender in PEOPLE:
            await db.store.inbound.ingest(batch(inbound(text, sender)), ENROLLMENT)
    claimed = (await db.store.mailboxes.claim(db.claim(limit=len(PEOPLE)))).items
    return sorted(claimed, key=lambda delivery: delivery.participant.addresses[0].value)


def everything(db: Database, delivery: Delivery, text: str) -> Decision:
    """Return a decision that changes all that one can."""
    state = delivery.states["echo"]
    return Decision(
        state=StateChange("echo", "ACTIVE", {"heard": text}, state.version),
        say=tuple(
            Say(id=MessageId(db.new_id()), content=Text(f"{text}{n}"), message_class=kind, expires_at=at)
            for n, (kind, at) in enumerate(
                [
                    (MessageClass.REPLY, None),
                    (MessageClass.BROADCAST, db.clock.now() + timedelta(hours=1, microseconds=7)),
                    (MessageClass.REPLY, None),
                ]
            )
        ),
        wake=(
            Wake(id=JobId(db.new_id()), kind="nudge", key=f"{delivery.participant.id}/n", at=db.clock.now()),
            Wake(id=JobId(db.new_id()), kind="again", key=f"{delivery.participant.id}/n", at=db.clock.now()),
        ),
    )


def heard(following: Sequence[Delivery | Exception | None]) -> list[str | type | None]:
    """Return what each answer brings: the next text, nothing, or an error's type."""
    found: list[str | type | None] = []
    for answer in following:
        if isinstance(answer, Delivery):
            assert isinstance(answer.event.event, Replied)
            found.append(answer.event.event.text)
        else:
            found.append(None if answer is None else type(answer))
    return found


async def texts_of(db: Database, person: ParticipantId) -> list[tuple[str, str, int]]:
    rows = db.rows("SELECT id, class, seq FROM outbox_messages WHERE seq IS NOT NULL ORDER BY class, seq")
    messages = [(await db.store.outbox.get(MessageId(str(row[0]))), *row[1:]) for row in rows]
    return [(item.content.body, str(kind), int(seq)) for item, kind, seq in messages if item.participant_id == person]


async def test_each_is_applied_to_its_own(db: Database) -> None:
    """State, messages in order, the last timer of a key, the response, and the next event of each mailbox."""
    first = await deliveries(db, "one", "two")
    decided = [
        Decided(item, everything(db, item, f"t{n}."), LEASE_SECONDS if n % 2 else None) for n, item in enumerate(first)
    ]
    assert heard(await db.store.mailboxes.decide(decided)) == [None, "two"] * 3
    for n, (item, one) in enumerate(zip(first, decided, strict=True)):
        person = item.participant.id
        assert (await db.store.participants.flow_state(person, "echo")).data == {"heard": f"t{n}."}
        expected = [(f"t{n}.1", "broadcast", 1), (f"t{n}.0", "reply", 1), (f"t{n}.2", "reply", 2)]
        assert await texts_of(db, person) == expected
        sent = [await db.store.outbox.get(say.id) for say in one.decision.say]
        assert [message.expires_at for message in sent] == [say.expires_at for say in one.decision.say]
        job = await db.store.jobs.get(one.decision.wake[-1].id)
        assert (job.kind, job.status, job.participant_id) == ("again", JobStatus.QUEUED, person)
    assert db.rows("SELECT count(*) FROM jobs") == [(len(PEOPLE),)]
    assert db.rows("SELECT count(*) FROM responses WHERE processed_at IS NOT NULL") == [(len(PEOPLE),)]
    assert heard((await db.store.mailboxes.claim(db.claim())).items) == ["two"] * 3


async def test_one_that_is_impossible_costs_the_others_nothing(db: Database) -> None:
    """A state that has changed, a lease that was lost, nobody to write to, an event that is gone."""
    first = await deliveries(db, "one", "two")
    changed, lost, unknown, gone = (item.participant.id for item in first[:4])
    db.change(f"UPDATE flow_states SET version = 7 WHERE participant_id = '{changed}'")
    db.change(f"UPDATE lanes SET fence = fence + 1 WHERE key = '{lost}'")
    db.change(f"DELETE FROM participant_addresses WHERE participant_id = '{unknown}'")
    db.change(f"DELETE FROM mailbox_events WHERE id = '{first[3].event.id}'")
    decided = [Decided(item, everything(db, item, "t"), LEASE_SECONDS) for item in first]
    answers = await db.store.mailboxes.decide(decided)
    assert heard(answers) == [VersionConflictError, LeaseLostError, NotFoundError, "two", "two", "two"]
    untouched = [changed, lost, unknown, gone]
    assert [await texts_of(db, person) for person in untouched] == [[], [], [], []]
    assert [len(await texts_of(db, item.participant.id)) for item in first[4:]] == [3, 3]
    assert db.rows("SELECT count(*) FROM jobs") == [(2,)]
    kept = db.rows("SELECT participant_id FROM mailbox_events WHERE attempt = 1 AND seq = 1 ORDER BY 1")
    assert {str(row[0]) for row in kept} == {changed, lost, unknown}


async def test_stale_lease_beside_the_current_one_is_the_only_one_lost(db: Database) -> None:
    """A worker that lost a mailbox and got it again may still have a decision of before on its way."""
    [old, *_] = await deliveries(db, "one", "two")
    db.clock.advance(LEASE_SECONDS + 1)
    [new] = [
        item
        for item in (await db.store.mailboxes.claim(db.claim(limit=len(PEOPLE)))).items
        if item.lease.key == old.lease.key
    ]
    decided = [Decided(item, Decision(), None) for item in (new, old)]
    assert heard(await db.store.mailboxes.decide(decided)) == [None, LeaseLostError]
    assert db.rows(f"SELECT count(*) FROM mailbox_events WHERE participant_id = '{old.lease.key}'") == [(1,)]


async def test_timers_that_end_together_fire_in_their_order(db: Database) -> None:
    """Several of one person are several events, in the order in which they are reported."""
    [one, other] = (await deliveries(db, "hello"))[:2]
    fired = []
    for person, key in [(one, "b"), (other, "x"), (one, "a"), (one, "c")]:
        new = NewJob(id=JobId(db.new_id()), kind="t", run_at=db.clock.now(), dedupe_key=key)
        fired.append(replace(new, participant_id=person.participant.id))
    await db.store.jobs.enqueue_many(fired)
    leased = {item.job.id: item.lease for item in (await db.store.jobs.claim(db.claim(limit=10))).items}
    lost = await db.store.jobs.finish([Ending(leased[job.id], Fire()) for job in fired])
    assert lost == frozenset()
    following = await db.store.mailboxes.decide([Decided(one, Decision(), LEASE_SECONDS)])
    keys = []
    while isinstance(item := following[0], Delivery):
        assert isinstance(item.event.event, TimerFired)
        keys.append(item.event.event.dedupe_key)
        following = await db.store.mailboxes.decide([Decided(item, Decision(), LEASE_SECONDS)])
    assert keys == ["b", "a", "c"]
    assert db.rows("SELECT count(*) FROM job_history WHERE status = 'done'") == [(4,)]
