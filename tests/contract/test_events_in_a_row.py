"""Events of one mailbox that are handled in one commit: as if they had been handled one after the other."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from promptpipe.model.decisions import Decided, Decision, Hook, Say, StateChange, Wake, in_a_row
from promptpipe.model.errors import VersionConflictError
from promptpipe.model.events import Replied
from promptpipe.model.ids import JobId, MessageId, ScheduleId
from promptpipe.model.jobs import Ending, Fire, NewJob
from promptpipe.model.messages import Text
from promptpipe.model.recurrence import Recurrence
from promptpipe.model.schedules import NewSchedule
from tests.support.database import LEASE_SECONDS
from tests.support.deciding import commit, decide
from tests.support.people import ENROLLMENT, batch, enroll, inbound

if TYPE_CHECKING:
    from promptpipe.model.decisions import Delivery
    from promptpipe.model.ids import ParticipantId
    from tests.support.database import Database


async def waiting(db: Database, *texts: str, depth: int = 16) -> Delivery:
    """Let Ada write *texts*, and claim her mailbox."""
    for text in texts:
        await db.store.inbound.ingest(batch(inbound(text)), ENROLLMENT)
    [delivery] = (await db.store.mailboxes.claim(db.claim(depth=depth))).items
    return delivery


def texts_of(delivery: Delivery | None) -> list[str]:
    assert delivery is not None
    events = [stored.event for stored in (delivery.event, *delivery.behind)]
    return [event.text for event in events if isinstance(event, Replied)]


async def test_several_are_handed_out_at_once(db: Database) -> None:
    """As many as are wanted; the attempt of the first alone counts. What is handled goes in one commit."""
    delivery = await waiting(db, "one", "two", "three", "four", depth=3)
    assert texts_of(delivery) == ["one", "two", "three"]
    assert db.rows("SELECT attempt FROM mailbox_events ORDER BY seq") == [(1,), (0,), (0,), (0,)]
    following = await commit(db, Decided(delivery, Decision(), LEASE_SECONDS, delivery.behind[:1]))
    assert texts_of(following) == ["three", "four"]
    assert db.rows("SELECT attempt FROM mailbox_events ORDER BY seq") == [(1,), (0,)]
    assert len(db.rows("SELECT 1 FROM responses WHERE processed_at IS NOT NULL")) == 2


async def test_after_a_crash_they_come_one_by_one(db: Database) -> None:
    """Any of those whose attempts were not counted may have been the reason."""
    await waiting(db, "one", "two", "three")
    db.clock.advance(LEASE_SECONDS + 1)
    delivery = await waiting(db)
    assert texts_of(delivery) == ["one"]
    following = await decide(db, delivery, Decision(), next_within=LEASE_SECONDS)
    assert texts_of(following) == ["two"]
    assert following is not None
    assert await decide(db, following, Decision(), next_within=None) is None
    assert texts_of(await waiting(db, "four")) == ["three", "four"]


async def test_what_no_version_knows_is_left_for_later(db: Database) -> None:
    """It is set aside when it is the first, and costs those before it nothing."""
    delivery = await waiting(db, "one", "two", "three", depth=1)
    db.change("UPDATE mailbox_events SET kind = 'from_the_future' WHERE seq = 2")
    await db.store.mailboxes.give_back(delivery.lease)
    delivery = await waiting(db)
    assert texts_of(delivery) == ["one"]
    assert texts_of(await decide(db, delivery, Decision(), next_within=LEASE_SECONDS)) == ["three"]
    assert await db.store.aside.count() == 1


async def test_event_that_was_removed_meanwhile_stops_those_handled_with_it(db: Database) -> None:
    """Nothing of their decision takes place: it knew of an event that is not to be handled."""
    person = await enroll(db)
    await db.store.inbound.ingest(batch(inbound("one")), ENROLLMENT)
    job = NewJob(id=JobId("j"), kind="tick", run_at=db.clock.now(), dedupe_key="t", participant_id=person)
    await db.store.jobs.enqueue(job)
    [leased] = (await db.store.jobs.claim(db.claim())).items
    await db.store.jobs.finish([Ending(leased.lease, Fire())])
    delivery = await waiting(db)
    assert len(delivery.behind) == 1
    db.change("DELETE FROM mailbox_events WHERE job_id = 'j'")
    said = Decision(say=(Say(id=MessageId("m"), content=Text("both")),))
    with pytest.raises(VersionConflictError):
        await commit(db, Decided(delivery, said, LEASE_SECONDS, delivery.behind))
    assert db.rows("SELECT id FROM outbox_messages") == []
    assert await decide(db, delivery, said, next_within=None) is None
    assert db.rows("SELECT id FROM outbox_messages") == [("m",)]


async def test_answer_that_was_lost_is_asked_for_again(db: Database) -> None:
    """Once more, nothing is done twice, and the next event is handed out."""
    delivery = await waiting(db, "one", "two", "three", depth=2)
    said = Decision(say=(Say(id=MessageId("m"), content=Text("both")),))
    decided = Decided(delivery, said, LEASE_SECONDS, delivery.behind)
    for _ in range(2):
        assert texts_of(await commit(db, decided)) == ["three"]
    assert db.rows("SELECT id FROM outbox_messages") == [("m",)]


async def test_timer_that_is_canceled_has_not_fired(db: Database) -> None:
    """Neither when it is canceled by a decision about an event before it, nor when it is set anew."""
    person = await enroll(db)
    for key in ("canceled", "renewed", "schedule:s:1", "other"):
        job = NewJob(id=JobId(key), kind="tick", run_at=db.clock.now(), dedupe_key=key, participant_id=person)
        await db.store.jobs.enqueue(job)
    await db.store.inbound.ingest(batch(inbound("one")), ENROLLMENT)
    for leased in (await db.store.jobs.claim(db.claim())).items:
        await db.store.jobs.finish([Ending(leased.lease, Fire())])
    delivery = await waiting(db)
    decision = Decision(
        cancel=("canceled",),
        wake=(Wake(id=JobId("new"), kind="tick", key="renewed", at=db.clock.now() + timedelta(hours=1)),),
        unschedule=(ScheduleId("s"),),
    )
    following = delivery.after(decision)
    assert following is not None
    assert (following.event.event.dedupe_key, following.behind) == ("other", ())  # type: ignore[union-attr]
    assert following.after(decision) is None


# ---------------------------------------------------------------- one decision, or several

WISHES = ("say", "wake", "cancel", "schedule", "unschedule", "hook", "unhook")


def decision_of(db: Database, person: ParticipantId, number: int, version: int, chance: random.Random) -> Decision:
    """Return what somebody's event *number* may change."""
    first = number == 0  # makes all that those after it may end
    wishes = {wish: chance.sample("abc", 3 if first else chance.choice([0, 0, 1, 2])) for wish in WISHES}
    keyed, at = chance.random() < 0.3, db.clock.now() + timedelta(days=number)

    def name(kind: str, what: str, made: int = number) -> str:
        return f"{kind}.{what}.{made}.{person}"

    return Decision(
        state=StateChange("echo", f"S{number}", {"n": number}, version) if chance.random() < 0.5 else None,
        say=tuple(
            Say(
                id=MessageId(name("m", what)),
                content=Text(f"{what}{number}"),
                dedupe_key=f"{what}.{person}" if keyed else None,
            )
            for what in wishes["say"]
        ),
        wake=tuple(
            Wake(id=JobId(name("j", what)), kind=f"tick{number}", key=f"{what}/{person}", at=at)
            for what in wishes["wake"]
        ),
        cancel=tuple(f"{what}/{person}" for what in wishes["cancel"]),
        schedule=tuple(
            NewSchedule(id=ScheduleId(name("s", what)), kind="t", recurrence=Recurrence(hour=1), participant_id=person)
            for what in wishes["schedule"]
        ),
        unschedule=tuple(ScheduleId(name("s", what, made)) for what in wishes["unschedule"] for made in range(number)),
        hook=tuple(
            Hook(participant_id=person, handler_type=what, flow_type=f"f{number}", expires_at=at)
            for what in wishes["hook"]
        ),
        unhook=tuple(wishes["unhook"]),
    )


def traces(db: Database, person: ParticipantId) -> list[list[str]]:
    """Return what was changed for somebody, without their name."""
    queries = (
        "SELECT body, status FROM outbox_messages WHERE participant_id = ? ORDER BY seq",
        "SELECT id, kind, dedupe_key, run_at FROM jobs WHERE participant_id = ? ORDER BY dedupe_key",
        "SELECT id FROM schedules WHERE participant_id = ? ORDER BY id",
        "SELECT handler_type, flow_type, expires_at FROM registered_hooks WHERE participant_id = ? ORDER BY 1",
        "SELECT current_state, state_data FROM flow_states WHERE participant_id = ?",
        "SELECT kind FROM mailbox_events WHERE participant_id = ?",
    )
    return [[str(row).replace(person, "") for row in db.rows(query, person)] for query in queries]


async def test_decisions_in_a_row_change_what_they_do_one_by_one(db: Database) -> None:
    """For one person they are committed one by one, for another all at once: chance says what they are."""
    for seed in range(40):
        people = [f"+1650{seed:04}{number:03}" for number in range(2)]
        for number, sender in enumerate(people):
            person = await enroll(db, sender)
            chance = random.Random(seed)
            await db.store.inbound.ingest(batch(*(inbound(text, sender) for text in "wxyz")), ENROLLMENT)
            [delivery] = (await db.store.mailboxes.claim(db.claim(depth=3))).items
            decisions: list[Decision] = []
            version = 1
            for event in range(4):
                decisions.append(decision_of(db, person, event, version, chance))
                version += decisions[-1].state is not None
            following = await decide(db, delivery, decisions.pop(0), next_within=LEASE_SECONDS)
            assert following is not None
            delivery = following
            if number == 0:
                alone: Delivery | None = delivery
                for decision in decisions:
                    assert alone is not None
                    alone = await decide(db, alone, decision, next_within=LEASE_SECONDS)
                expected = traces(db, person)
            else:
                await commit(db, Decided(delivery, in_a_row(decisions), None, delivery.behind))
                assert traces(db, person) == expected, seed


def test_what_cannot_be_one_decision() -> None:
    """A refusal is of one event; a decision changes the state of one flow."""
    changes = [Decision(state=StateChange(flow, "A", {}, 1)) for flow in ("echo", "other")]
    assert changes[0].goes_with(changes[0])
    assert changes[0].goes_with(Decision())
    assert not changes[0].goes_with(changes[1])
    assert not changes[0].goes_with(Decision(refusal="no"))
    assert not Decision(refusal="no").goes_with(Decision())


async def test_next_event_is_shown_what_was_decided_before(db: Database) -> None:
    """The new state, and the handlers in their order: the one that expires soonest first."""
    delivery = await waiting(db, "one", "two", "three")
    person = delivery.participant.id

    def hook(name: str, days: int | None) -> Hook:
        expires_at = None if days is None else db.clock.now() + timedelta(days=days)
        return Hook(participant_id=person, handler_type=name, flow_type=name, expires_at=expires_at)

    first = Decision(state=StateChange("echo", "A", {"n": 1}, 1), hook=(hook("late", 2), hook("soon", 1)))
    second = delivery.after(first)
    assert second is not None
    assert texts_of(second) == ["two", "three"]
    state = second.states["echo"]
    assert (state.current_state, state.data, state.version) == ("A", {"n": 1}, 2)
    assert [it.handler_type for it in second.hooks] == ["soon", "late", "echo"]
    third = second.after(Decision(unhook=("soon",), hook=(hook("late", 3), hook("echo", None))))
    assert third is not None
    assert [(it.handler_type, it.expires_at) for it in third.hooks] == [
        ("late", hook("", 3).expires_at),
        ("echo", None),
    ]


async def test_handler_registered_last_stays_before_the_others(db: Database) -> None:
    """Of those that do not expire, in a row as from the store: whoever was put into a second flow is in that one."""
    person = await enroll(db)
    for name in ("zebra", "aardvark", "middle"):
        db.clock.advance(1)
        await db.store.recovery.register_hook(Hook(participant_id=person, handler_type=name, flow_type=name))
    delivery = await waiting(db, "one", "two", "three")
    assert [hook.handler_type for hook in delivery.hooks] == ["middle", "aardvark", "zebra", "echo"]
    second = delivery.after(Decision(unhook=("aardvark",)))
    assert second is not None
    assert [hook.handler_type for hook in second.hooks] == ["middle", "zebra", "echo"]
    again = Hook(participant_id=person, handler_type="zebra", flow_type="zebra")
    third = second.after(Decision(hook=(again,)))
    assert third is not None
    assert [hook.handler_type for hook in third.hooks] == ["zebra", "middle", "echo"]
