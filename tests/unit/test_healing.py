"""What a hand, an import or an older version may leave behind: found, named, repaired, and then no more."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from promptpipe.flows.conversation import ConversationFlow, ConversationFlowRecovery, ConversationSettings, script
from promptpipe.model.errors import StoreUnavailableError
from promptpipe.model.ids import JobId, ScheduleId
from promptpipe.model.jobs import NewJob
from promptpipe.model.messages import MessageStatus
from promptpipe.model.recurrence import Recurrence
from promptpipe.model.schedules import NewSchedule
from tests.support.database import LEASE_SECONDS
from tests.support.people import ADA, BOB, batch, inbound, phone
from tests.support.recovering import CONVERSATION, manager
from tests.support.sending import claim_order, put, status
from tests.support.work import Working

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from promptpipe.model.ids import ParticipantId
    from promptpipe.model.recovery import RecoveryReport
    from promptpipe.recovery import RecoveryManager, RecoveryRegistry, Tally
    from tests.support.database import Database

HOUR = timedelta(hours=1)
OFF = timedelta(0)
SETTINGS = ConversationSettings(auto_feedback_delay=OFF, feedback_timeout=OFF)
GHOST = "nobody"


def recovery(db: Database, **how: Any) -> RecoveryManager:
    return manager(db, ConversationFlowRecovery(SETTINGS), **how)


def found(report: RecoveryReport) -> list[tuple[str, str, str]]:
    """Return what a report names: where, what, and what was wrong."""
    return [(component.name, *repair) for component in report.components for repair in component.repairs]


def stored(db: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of all tables, but those of the sequence that each transaction may draw from."""
    return {table: sorted(db.rows(f"SELECT * FROM {table}"), key=repr) for table in db.tables()}


async def enter(db: Database, number: str = ADA, /, **state: object) -> ParticipantId:
    """Return someone in the conversation flow, whose state is *state*."""
    await db.store.inbound.ingest(batch(inbound("hi", number)), CONVERSATION)
    person = (await db.store.participants.find(phone(number))).id
    edit(db, person, state)
    return person


def edit(db: Database, person: str, state: object) -> None:
    db.change("UPDATE flow_states SET state_data = ? WHERE participant_id = ?", json.dumps(state), person)


def pending(db: Database, *, sent_ago: timedelta, due_in: timedelta) -> dict[str, object]:
    now = db.clock.now()
    return {
        "messageId": "m",
        "to": "p",
        "sentAt": (now - sent_ago).isoformat(),
        "reminderDueAt": (now + due_in).isoformat(),
    }


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that is wrong: *inflict* does it to someone, and returns what is to be found."""

    name: str
    inflict: Callable[[Database, ParticipantId], Awaitable[tuple[str, str, str]]]


DAMAGES: list[Damage] = []


def damage(inflict: Callable[[Database, ParticipantId], Awaitable[tuple[str, str, str]]]) -> None:
    DAMAGES.append(Damage(inflict.__name__.replace("_", " "), inflict))


@damage
async def state_refers_to_a_job_that_is_gone(db: Database, person: ParticipantId) -> tuple[str, str, str]:
    edit(db, person, {"stateTransitionTimerID": "gone"})
    return "conversation flow", person, "stateTransitionTimerID: names a job that is gone"


@damage
async def reminder_pending_without_a_timer(db: Database, person: ParticipantId) -> tuple[str, str, str]:
    edit(db, person, {"dailyPromptPending": pending(db, sent_ago=4 * HOUR, due_in=HOUR)})
    return "conversation flow", person, "dailyPromptReminderTimerID: waits for a timer that is not there"


@damage
async def transition_without_a_timer(db: Database, person: ParticipantId) -> tuple[str, str, str]:
    due_at = (db.clock.now() + HOUR).isoformat()
    edit(db, person, {"stateTransition": {"target": "FEEDBACK", "dueAt": due_at}})
    return "conversation flow", person, "stateTransitionTimerID: waits for a timer that is not there"


@damage
async def participant_without_a_handler(db: Database, person: ParticipantId) -> tuple[str, str, str]:
    db.change("DELETE FROM registered_hooks")
    return "conversation flow", person, "no response handler of the flow conversation"


@damage
async def handler_without_a_participant(db: Database, person: ParticipantId) -> tuple[str, str, str]:
    del person
    db.change("UPDATE registered_hooks SET participant_id = ?", GHOST)
    # Whose handler it was is without one now, and that is another finding.
    db.change("UPDATE conversation_participants SET status = 'paused'")
    return "response handlers", GHOST, "a response handler (conversation) without a participant"


@damage
async def schedule_without_a_next_time(db: Database, person: ParticipantId) -> tuple[str, str, str]:
    del person
    new = NewSchedule(id=ScheduleId(db.new_id()), kind="test", recurrence=Recurrence(hour=9))
    await db.store.schedules.create(new)
    db.change("UPDATE schedules SET next_at = NULL")
    return "repair_schedules", new.id, "a schedule without a next time"


@damage
async def mailbox_that_is_not_due(db: Database, person: ParticipantId) -> tuple[str, str, str]:
    db.change("UPDATE lanes SET due_at = NULL WHERE kind = 'mailbox'")
    return "lanes", person, "mailbox: nobody would come for what is in it"


@damage
async def mailbox_without_a_row(db: Database, person: ParticipantId) -> tuple[str, str, str]:
    db.change("DELETE FROM lanes WHERE kind = 'mailbox'")
    return "lanes", person, "mailbox: nobody would come for what is in it"


@damage
async def mailbox_that_gives_a_place_again(db: Database, person: ParticipantId) -> tuple[str, str, str]:
    db.change("UPDATE lanes SET seq = 0 WHERE kind = 'mailbox'")
    return "lanes", person, "mailbox: nobody would come for what is in it"


@damage
async def outbox_that_is_not_due(db: Database, person: ParticipantId) -> tuple[str, str, str]:
    await put(db, person)
    db.change("UPDATE lanes SET due_at = NULL WHERE kind = 'outbox'")
    return "lanes", f"{person}/whatsapp/reply", "outbox: nobody would come for what is in it"


@damage
async def outbox_without_a_row(db: Database, person: ParticipantId) -> tuple[str, str, str]:
    await put(db, person)
    db.change("DELETE FROM lanes WHERE kind = 'outbox'")
    return "lanes", f"{person}/whatsapp/reply", "outbox: nobody would come for what is in it"


@damage
async def message_on_the_wire_that_nobody_sends(db: Database, person: ParticipantId) -> tuple[str, str, str]:
    message_id = await put(db, person)
    await claim_order(db)
    db.change("UPDATE lanes SET leased = (1 = 2), worker = NULL WHERE kind = 'outbox'")
    return "messages in doubt", message_id, "marked as on the wire, and nobody sends it"


@pytest.mark.parametrize("case", DAMAGES, ids=lambda case: case.name)
async def test_damage_is_found_named_and_repaired(case: Damage, db: Database) -> None:
    """Looking names what recovering repairs, and changes nothing; afterwards there is nothing to be found."""
    person = await enter(db)
    assert (await recovery(db, look_only=True).look()).is_clean
    finding = await case.inflict(db, person)
    before = stored(db)
    looked = await recovery(db, look_only=True).look()
    assert found(looked) == [finding]
    assert stored(db) == before
    assert found(await recovery(db).recover_all()) == [finding]
    assert (await recovery(db, look_only=True).look()).is_clean
    assert (await recovery(db).recover_all()).is_clean


async def test_roused_mailbox_is_worked_off_in_its_order(db: Database) -> None:
    """What was in it is handled, and what comes then comes after it."""
    working = Working(db, [ConversationFlow(SETTINGS)])
    person = await enter(db)
    db.change("UPDATE lanes SET due_at = NULL, seq = 0 WHERE kind = 'mailbox'")
    assert await working.everything() == []
    await recovery(db).recover_all()
    await db.store.inbound.ingest(batch(inbound("to stretch")), CONVERSATION)
    assert (await working.everything())[0] == script.greeting(None)
    said = (await db.store.participants.flow_state(person, "conversation")).data["conversationHistory"]
    assert isinstance(said, list)
    assert [turn["content"] for turn in said if turn["role"] == "user"] == ["hi", "to stretch"]


async def test_roused_outbox_is_sent(db: Database) -> None:
    """Nobody would have come for it."""
    working = Working(db, [ConversationFlow(SETTINGS)])
    person = await enter(db)
    await working.everything()
    await put(db, person, "forgotten")
    db.change("DELETE FROM lanes WHERE kind = 'outbox'")
    assert await working.everything() == []
    await recovery(db).recover_all()
    await put(db, person, "and new")
    assert await working.everything() == ["forgotten", "and new"]


async def test_stray_message_waits_in_doubt_and_goes_when_nothing_is_heard(db: Database) -> None:
    """It may have reached the provider: it is resent only after the wait for a status."""
    working = Working(db, [ConversationFlow(SETTINGS)])
    person = await enter(db)
    await working.everything()
    message_id = await put(db, person, "was it sent?")
    await claim_order(db)
    db.change("UPDATE lanes SET leased = (1 = 2), worker = NULL, due_at = NULL WHERE kind = 'outbox'")
    await recovery(db).recover_all()
    assert await status(db, message_id) is MessageStatus.IN_DOUBT
    assert await working.everything() == []
    db.clock.advance(121)
    assert await working.everything() == ["was it sent?"]


async def test_reminder_that_lost_its_timer_comes_when_it_was_due(db: Database) -> None:
    """With what was left of its time."""
    working = Working(db, [ConversationFlow(SETTINGS)])
    person = await enter(db)
    await working.everything()
    state = (await db.store.participants.flow_state(person, "conversation")).data
    edit(db, person, {**state, "dailyPromptPending": pending(db, sent_ago=4 * HOUR, due_in=HOUR)})
    await recovery(db).recover_all()
    assert await working.everything() == []
    db.clock.advance(3599)
    assert await working.everything() == []
    db.clock.advance(1)
    assert await working.everything() == [script.reminder({})]


async def test_timer_that_is_long_over_is_only_forgotten(db: Database) -> None:
    """Its job has fired, and has been pruned from the history meanwhile."""
    state = {
        "dailyPromptReminderTimerID": "old",
        "dailyPromptPending": pending(db, sent_ago=300 * HOUR, due_in=-200 * HOUR),
    }
    await enter(db, **state)
    db.change("DELETE FROM mailbox_events")
    await recovery(db).recover_all()
    assert db.rows("SELECT payload ->> 'remaining' FROM mailbox_events") == [(None,)]


@pytest.mark.parametrize(
    ("state", "named"),
    [
        ({"conversationHistory": "none"}, "conversationHistory"),
        ({"userProfile": []}, "userProfile"),
        ({"scheduleRegistry": {}, "lastPromptSentAt": 5}, "lastPromptSentAt, scheduleRegistry"),
        ({"dailyPromptReminderTimerID": True}, "dailyPromptReminderTimerID"),
        ([], "the state"),
        ("text", "the state"),
    ],
)
async def test_state_that_is_nonsense_is_named_and_the_others_recover(db: Database, state: object, named: str) -> None:
    """That participant is set aside; absent keys, and null, are no nonsense."""
    broken, whole = await enter(db), await enter(db, BOB, stateTransitionTimerID="gone", userProfile=None)
    edit(db, broken, state)
    report = await recovery(db).recover_all()
    assert report.components[-1].failures == ((broken, f"not what it should be: {named}"),)
    assert found(report) == [("conversation flow", whole, "stateTransitionTimerID: names a job that is gone")]


@pytest.mark.parametrize("closed_db", ["sqlite"], indirect=True)  # PostgreSQL lets nothing else than JSON be stored
async def test_state_that_is_no_json_is_named_and_the_others_recover(db: Database) -> None:
    """It is not read any further; the one in the same span is."""
    broken, whole = await enter(db), await enter(db, BOB, stateTransitionTimerID="gone")
    db.change("UPDATE flow_states SET state_data = '{torn' WHERE participant_id = ?", broken)
    report = await recovery(db).recover_all()
    assert report.components[-1].failures == ((broken, "not what it should be: the state"),)
    assert [subject for _, subject, _ in found(report)] == [whole]


async def test_flow_that_nobody_knows_is_named(db: Database) -> None:
    """With how many are in it; the others recover."""
    await enter(db)
    ghost = await enter(db, BOB, stateTransitionTimerID="gone")
    db.change("UPDATE flow_states SET flow_type = 'abandoned' WHERE participant_id <> ?", ghost)
    report = await recovery(db).recover_all()
    [flows] = [component for component in report.components if component.name == "flows"]
    assert flows.failures == (("abandoned", "no flow is of this type; active participants in it: 1"),)
    assert report.components[-1].restored == 1


@pytest.mark.parametrize("days", [-1, 400, 10**9])
async def test_timer_with_an_impossible_time_to_live_is_named_and_the_others_recover(db: Database, days: int) -> None:
    """A clear report for that participant alone."""
    due: dict[str, object] = {"dailyPromptReminderTimerID": "gone"}
    odd = {**pending(db, sent_ago=HOUR, due_in=HOUR), "reminderDueAt": "9999-12-31T23:59:59+00:00"}
    if days < 0:
        odd["reminderDueAt"] = (db.clock.now() - 2 * HOUR).isoformat()
    elif days < 1000:
        odd["reminderDueAt"] = (db.clock.now() + timedelta(days=days)).isoformat()
    broken = await enter(db, **due, dailyPromptPending=odd)
    whole = await enter(db, BOB, **due, dailyPromptPending=pending(db, sent_ago=HOUR, due_in=HOUR))
    component = (await recovery(db).recover_all()).components[-1]
    [(subject, reason)] = component.failures
    assert (subject, [who for who, _ in component.repairs]) == (broken, [whole])
    assert reason.startswith("CorruptStateError: dailyPromptReminderTimerID: a timer cannot run for ")


async def test_timer_that_would_end_in_a_thousand_years_is_named(db: Database) -> None:
    """Nobody waits for that: it was edited."""
    far = {"target": "FEEDBACK", "dueAt": "3026-01-01T00:00:00+00:00"}
    broken = await enter(db, stateTransition=far, stateTransitionTimerID="gone")
    for report in (await recovery(db, look_only=True).look(), await recovery(db).recover_all()):
        [(subject, reason)] = report.components[-1].failures
        assert (subject, report.components[-1].restored) == (broken, 0)
        assert reason.endswith("stateTransitionTimerID: a timer cannot end as late as 3026-01-01T00:00:00+00:00")


async def test_work_whose_lease_has_ended_is_found(db: Database) -> None:
    """A process was killed, and nobody has come since: starting the service puts it right."""
    person = await enter(db)
    await put(db, person)
    await db.store.jobs.enqueue(NewJob(id=JobId(db.new_id()), kind="noop", run_at=db.clock.now()))
    await db.store.jobs.claim(db.claim())
    await db.store.mailboxes.claim(db.claim())
    await claim_order(db)
    assert (await recovery(db, look_only=True).look()).is_clean
    db.clock.advance(LEASE_SECONDS)
    leases = (await recovery(db, look_only=True).look()).components[0]
    ended = "leased until a time that is over: 1"
    assert leases.repairs == (("job", ended), ("mailbox", ended), ("outbox", ended))


class Faltering:
    """A component whose store cannot be reached at first."""

    name = "faltering"

    def __init__(self) -> None:
        self.calls = 0

    async def recover_state(self, registry: RecoveryRegistry) -> None:
        self.calls += 1

        async def repair(number: int) -> None:
            if number == 3:
                raise ValueError("it cannot be")
            if self.calls == 1 and number == 2:
                raise StoreUnavailableError("gone for a moment")
            registry.tally.mend(str(number), "mended")

        await registry.each([(1, 2, 3), (3, 4)][self.calls - 1], repair)


async def test_component_goes_on_when_the_store_is_back(db: Database) -> None:
    """What it has repaired before counts too, what has failed counts once; without patience it has failed."""
    faltering = Faltering()

    async def patiently(function: Callable[[], Awaitable[None]]) -> None:
        try:
            await function()
        except StoreUnavailableError:
            await function()

    report = await manager(db, faltering, persist=patiently).recover_all()
    component = report.components[-1]
    assert {subject for subject, _ in component.repairs} == {"1", "4"}
    assert component.failures == (("3", "ValueError: it cannot be"),)
    failed = (await manager(db, Faltering()).recover_all()).components[-1]
    assert ("faltering", "StoreUnavailableError: gone for a moment") in failed.failures


async def test_progress_is_told_with_each_span_of_participants(db: Database) -> None:
    """How many have been looked at, of how many, and how many repaired."""
    for number in range(5):
        await enter(db, f"+1650555{number:04}")
    db.change("DELETE FROM registered_hooks")
    told: list[tuple[str, int, int | None, int]] = []

    def progress(tally: Tally) -> None:
        told.append((tally.name, tally.checked, tally.expected, tally.restored))

    await recovery(db, progress=progress, span=2).recover_all()
    checked = sorted({(done, restored) for _, done, _, restored in told if done == restored})
    assert checked == [(2, 2), (4, 4), (5, 5)]
    assert {(name, expected) for name, _, expected, _ in told} == {("conversation flow", 5)}
