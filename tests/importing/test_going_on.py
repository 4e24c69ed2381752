"""After an import conversations go on: what was to come still comes, at its time, and replies are answered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from promptpipe.flows.conversation import ConversationFlow, ConversationFlowRecovery, script
from promptpipe.flows.conversation.state import SCHEDULES
from promptpipe.flows.conversation.timers import TIMERS
from promptpipe.model.ids import ScheduleId
from promptpipe.model.jobs import JobStatus
from promptpipe.model.listing import JobFilter, PageRequest
from promptpipe.recovery import RecoveryManager, RecoveryRegistry
from tests.support.first import ADA, DAY, NUMBERS, TARGET, imported, reasons
from tests.support.people import batch, inbound, phone
from tests.support.work import Working

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptpipe.model.jobs import Job
    from promptpipe.model.participants import Participant
    from tests.support.database import Database
    from tests.support.first import FirstOnSqlite

COACH = ConversationFlow(TARGET.conversation)
MINUTE, HOUR = 60.0, 3600.0
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PROFILE = {"habit_domain": "reading", "prompt_anchor": "breakfast", "preferred_time": "9", "motivational_frame": "calm"}
IN_MEMORY = "timer_17"
SENT = f"{DAY}T11:58:00Z"
PENDING = {"sent_at": SENT, "to": NUMBERS[ADA], "reminder_due_at": f"{DAY}T16:58:00Z"}
REGISTRY = [
    {
        "id": "sched_fixed",
        "type": "fixed",
        "fixed_time": "09:30",
        "timezone": "America/Toronto",
        "created_at": f"{DAY}T04:00:00.123456789-05:00",
        "timer_id": IN_MEMORY,
    },
    {"id": "sched_random", "type": "random", "random_start_time": "18:00", "random_end_time": "20:00"},
]


async def person(db: Database) -> Participant:
    return await db.store.participants.find(phone(f"+{NUMBERS[ADA]}"))


async def data(db: Database) -> Mapping[str, object]:
    return (await db.store.participants.flow_state((await person(db)).id, "conversation")).data


async def timers(db: Database) -> dict[str, Job]:
    """Return the jobs that are to come, by their kinds."""
    return {job.kind: job for job in (await db.store.jobs.list(JobFilter(), PageRequest(size=50))).items}


async def say(db: Database, text: str) -> None:
    await db.store.inbound.ingest(batch(inbound(text, f"+{NUMBERS[ADA]}")), None)


async def carried_over(db: Database, old_file: FirstOnSqlite, **state: object) -> Working:
    old_file.participant()
    old_file.state(**{"userProfile": PROFILE, **state})
    old_file.hook()
    assert reasons(await imported(old_file, db)) == []
    await db.restart()
    await db.repair()
    return Working(db, [COACH])


async def test_reminder_comes_at_its_time(db: Database, old_file: FirstOnSqlite) -> None:
    """Though the old service had lost its timer."""
    working = await carried_over(db, old_file, dailyPromptPending=PENDING, lastPromptSentAt=SENT)
    assert (await timers(db))["daily_prompt_reminder"].run_at == NOON + timedelta(hours=4, minutes=58)
    db.clock.advance(4 * HOUR + 57 * MINUTE)
    assert await working.everything() == []
    db.clock.advance(MINUTE)
    assert await working.everything() == [script.reminder({"intensity": "normal", **PROFILE})]
    assert "dailyPromptPending" not in await data(db)


async def test_reply_stops_the_reminder(db: Database, old_file: FirstOnSqlite) -> None:
    """And is answered."""
    pending = {"dailyPromptPending": PENDING, "dailyPromptReminderTimerID": IN_MEMORY}
    working = await carried_over(db, old_file, conversationState="FEEDBACK", **pending)
    await say(db, "not yet")
    assert await working.everything() != []
    assert (await timers(db))["daily_prompt_reminder"].status is JobStatus.CANCELED
    assert (await data(db))["dailyPromptRespondedAt"] == NOON.isoformat()


async def test_durable_reminder_keeps_its_time(db: Database, old_file: FirstOnSqlite) -> None:
    """That of its job, not what the state would give."""
    job = f"job_daily_prompt_reminder_{ADA}"
    old_file.job("daily_prompt_reminder", f"{DAY} 13:00:00", payload={"to": NUMBERS[ADA], "expected_sent_at": SENT})
    working = await carried_over(db, old_file, dailyPromptPending=PENDING, dailyPromptReminderTimerID=job)
    [kept] = (await timers(db)).values()
    assert (await data(db))["dailyPromptReminderTimerID"] == kept.id
    db.clock.advance(HOUR)
    assert await working.everything() == [script.reminder({"intensity": "normal", **PROFILE})]


async def test_schedules_prompt_again(db: Database, old_file: FirstOnSqlite) -> None:
    """Ten minutes before the time that was chosen, in the zone where it was; entries lead to their schedules."""
    working = await carried_over(db, old_file, scheduleRegistry=REGISTRY)
    entries = (await data(db))[SCHEDULES]
    assert isinstance(entries, list)
    made = [await db.store.schedules.get(ScheduleId(entry["id"])) for entry in entries]
    assert [(one.recurrence.hour, one.recurrence.minute, one.recurrence.zone) for one in made] == [
        (9, 20, "America/Toronto"),
        (17, 50, "America/Toronto"),
    ]
    assert [one.spread for one in made] == [timedelta(0), timedelta(hours=2)]
    # Toronto is five hours behind: 9:20 there is 14:20.
    db.clock.advance(2 * HOUR + 19 * MINUTE)
    assert await working.everything() == []
    db.clock.advance(MINUTE)
    said = await working.everything()
    assert len(said) == 2
    assert "breakfast" in said[0]
    db.clock.advance(24 * HOUR)
    assert await working.everything() != []


@pytest.mark.parametrize(
    ("state", "kind", "due"),
    [
        ({"autoFeedbackTimerID": IN_MEMORY}, "auto_feedback_enforcement", timedelta(minutes=3)),
        ({"feedbackTimerID": IN_MEMORY, "feedbackState": "waiting_initial"}, "feedback_timeout", timedelta(minutes=13)),
        (
            {"feedbackFollowupTimerID": IN_MEMORY, "feedbackTimerID": "timer_1", "feedbackState": "waiting_followup"},
            "feedback_followup",
            timedelta(hours=3, minutes=13),
        ),
    ],
)
async def test_timer_that_was_in_memory_comes_when_it_would_have(
    db: Database, old_file: FirstOnSqlite, state: dict[str, str], kind: str, due: timedelta
) -> None:
    """Its time follows from when the prompt was sent."""
    working = await carried_over(db, old_file, lastPromptSentAt=SENT, **state)
    found = await timers(db)
    assert {kind: job.run_at for kind, job in found.items()} == {kind: NOON + due}
    [timer] = [timer for timer in TIMERS if timer.kind == kind]
    assert (await data(db))[timer.data_key] == found[kind].id
    assert found[kind].dedupe_key == timer.key((await person(db)).id)
    db.clock.advance(due.total_seconds())
    said = await working.everything()
    expected = {"feedback_timeout": [script.ASK_FEEDBACK], "feedback_followup": [script.FOLLOW_UP]}
    assert said == expected.get(kind, [])
    assert timer.data_key not in await data(db)
    if kind == "auto_feedback_enforcement":
        assert (await data(db))["conversationState"] == "FEEDBACK"


async def test_delayed_transition_takes_place(db: Database, old_file: FirstOnSqlite) -> None:
    """Its job says where it leads, and when."""
    job = f"job_state_transition_{ADA}"
    old_file.job("state_transition", f"{DAY} 12:30:00", payload={"target_state": "FEEDBACK"})
    working = await carried_over(db, old_file, conversationState="INTAKE", stateTransitionTimerID=job)
    db.clock.advance(29 * MINUTE)
    await working.everything()
    assert (await data(db))["conversationState"] == "INTAKE"
    db.clock.advance(MINUTE)
    await working.everything()
    assert (await data(db))["conversationState"] == "FEEDBACK"


async def test_overdue_timer_comes_at_once(db: Database, old_file: FirstOnSqlite) -> None:
    """As after any time that the service was down."""
    overdue = {**PENDING, "sent_at": "2026-02-27T09:00:00Z", "reminder_due_at": "2026-02-27T14:00:00Z"}
    working = await carried_over(db, old_file, dailyPromptPending=overdue)
    assert await working.everything() == [script.reminder({"intensity": "normal", **PROFILE})]


async def test_references_of_timers_that_had_fired_are_forgotten(db: Database, old_file: FirstOnSqlite) -> None:
    """The old service left some behind."""
    await carried_over(
        db, old_file, feedbackState="completed", feedbackTimerID=IN_MEMORY, feedbackFollowupTimerID="job_gone"
    )
    assert await timers(db) == {}
    assert {timer.data_key for timer in TIMERS}.isdisjoint(await data(db))


async def test_transition_that_was_in_memory_is_a_problem(db: Database, old_file: FirstOnSqlite) -> None:
    """Nothing says where it led; the rest of the conversation is imported."""
    old_file.participant()
    old_file.state(userProfile=PROFILE, stateTransitionTimerID=IN_MEMORY)
    [(table, row, reason)] = reasons(await imported(old_file, db))
    assert (table, row) == ("flow_states", "1")
    assert reason == "stateTransitionTimerID: nothing says when it is due, or where it leads"
    assert (await data(db))["userProfile"] == {"intensity": "normal", **PROFILE}


async def test_history_goes_on(db: Database, old_file: FirstOnSqlite) -> None:
    """The newest fifty turns of the two who talk; a reply is added to them."""
    turns = [
        {"role": "system", "content": "be kind", "timestamp": SENT},
        *({"role": "user", "content": str(n), "timestamp": f"{DAY}T06:00:00.123456789-05:00"} for n in range(60)),
    ]
    working = await carried_over(db, old_file, conversationHistory={"messages": turns})
    history = (await data(db))["conversationHistory"]
    assert isinstance(history, list)
    assert [turn["content"] for turn in history] == [str(n) for n in range(10, 60)]
    assert history[0]["timestamp"] == f"{DAY}T11:00:00.123456+00:00"
    await say(db, "hello again")
    assert await working.everything() != []
    history = (await data(db))["conversationHistory"]
    assert isinstance(history, list)
    assert "hello again" in [turn["content"] for turn in history]


async def test_recovery_finds_nothing_to_do(db: Database, old_file: FirstOnSqlite) -> None:
    """Every timer has its job, every schedule its time, everybody their response handler."""
    old_file.job("feedback_timeout", f"{DAY} 12:30:00")
    await carried_over(
        db,
        old_file,
        dailyPromptPending=PENDING,
        lastPromptSentAt=SENT,
        autoFeedbackTimerID=IN_MEMORY,
        feedbackState="waiting_initial",
        feedbackTimerID=f"job_feedback_timeout_{ADA}",
        scheduleRegistry=REGISTRY,
    )
    assert len(await timers(db)) == 3
    manager = RecoveryManager(RecoveryRegistry(db.store.recovery, db.clock), db.clock)
    manager.register(ConversationFlowRecovery(TARGET.conversation))
    components = await manager.recover_components()
    assert [(one.restored, one.failures) for one in components] == [(0, ())]
