"""The recovery manager and the conversation's recoverable: what fails is reported, the rest recovers."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import trio

from promptpipe.flows.conversation import ConversationFlowRecovery, ConversationSettings
from promptpipe.metrics import PrometheusMetrics
from promptpipe.model.events import TimerLost
from promptpipe.model.ids import JobId, ParticipantId, ScheduleId
from promptpipe.model.recovery import LostTimer
from promptpipe.model.recurrence import Recurrence
from promptpipe.model.schedules import NewSchedule
from promptpipe.recovery import TimerRecoveryInfo
from promptpipe.recovery.manager import SCHEDULES_AT_ONCE
from tests.support.people import ADA, batch, inbound
from tests.support.recovering import CONVERSATION, manager
from tests.support.scrape import counted

if TYPE_CHECKING:
    from promptpipe.recovery import RecoveryRegistry
    from tests.support.database import Database

TIMER = "dailyPromptReminderTimerID"


class Failing:
    """A component that cannot be recovered."""

    name = "failing"

    async def recover_state(self, registry: RecoveryRegistry) -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("broken")


async def enroll(db: Database, number: str, **state: object) -> ParticipantId:
    await db.store.inbound.ingest(batch(inbound("hi", number)), CONVERSATION)
    [(person,)] = db.rows("SELECT participant_id FROM participant_addresses WHERE address = ?", number)
    db.change("UPDATE flow_states SET state_data = ? WHERE participant_id = ?", json.dumps(state), person)
    db.change("DELETE FROM mailbox_events")
    return ParticipantId(str(person))


def pending(db: Database, *, sent: timedelta, due: timedelta) -> dict[str, object]:
    now = db.clock.now()
    return {
        "messageId": "m",
        "to": "p",
        "sentAt": (now + sent).isoformat(),
        "reminderDueAt": (now + due).isoformat(),
    }


def lost_events(db: Database) -> dict[object, object]:
    rows = db.rows("SELECT participant_id, payload ->> 'remaining' FROM mailbox_events")
    return {person: None if remaining is None else float(remaining) for person, remaining in rows}


async def test_failing_component_stops_no_other(db: Database) -> None:
    """It is in the report with its reason; the one after it has recovered."""
    await enroll(db, ADA)
    db.change("DELETE FROM registered_hooks")
    metrics = PrometheusMetrics(())
    report = await manager(
        db, Failing(), ConversationFlowRecovery(ConversationSettings()), metrics=metrics
    ).recover_all()
    failing, conversation = report.components[-2:]
    assert (failing.failed, failing.failures) == (1, (("failing", "ValueError: broken"),))
    assert (conversation.checked, conversation.restored, conversation.failed) == (1, 1, 0)
    assert await db.store.recovery.last_report() == report
    assert db.rows("SELECT handler_type, expires_at FROM registered_hooks") == [("conversation", None)]
    found = {name: value for name, value in counted(metrics).items() if name.startswith("recovery_findings")}
    assert found == {
        "recovery_findings_total{failing,failed}": 1,
        "recovery_findings_total{conversation flow,restored}": 1,
    }


async def test_all_schedules_get_their_next_time_before_anything_runs(db: Database) -> None:
    """However many have lost it; the report says how many."""
    lost = SCHEDULES_AT_ONCE + 1
    for _ in range(lost):
        new = NewSchedule(id=ScheduleId(db.new_id()), kind="test", recurrence=Recurrence(hour=9))
        await db.store.schedules.create(new)
    db.change("UPDATE schedules SET next_at = NULL")
    [repair] = [item for item in await manager(db).repair() if item.name == "repair_schedules"]
    assert (repair.checked, repair.restored, repair.failed) == (lost, lost, 0)
    assert db.rows("SELECT count(*) FROM schedules WHERE next_at IS NULL") == [(0,)]
    assert sum(item.restored for item in await manager(db).repair()) == 0


async def test_failing_participant_stops_no_other(db: Database) -> None:
    """A state edited into nonsense is reported by participant; the others' timers are restored."""
    hour = timedelta(hours=1)
    good = await enroll(db, "+16505550001", **{TIMER: "gone", "dailyPromptPending": pending(db, sent=-hour, due=hour)})
    bad = await enroll(db, "+16505550002", **{TIMER: "gone", "dailyPromptPending": "nonsense"})
    report = await manager(db, ConversationFlowRecovery(ConversationSettings())).recover_all()
    component = report.components[-1]
    assert (component.restored, component.failed, component.failures[0][0]) == (1, 1, bad)
    assert lost_events(db) == {good: 3600.0}


async def test_lost_reminder_gets_what_was_left_of_its_time(db: Database) -> None:
    """Four hours of five are gone: one is left. When all are gone, it is due at once."""
    hour = timedelta(hours=1)
    early = await enroll(
        db, "+16505550001", **{TIMER: "gone1", "dailyPromptPending": pending(db, sent=-4 * hour, due=hour)}
    )
    late = await enroll(
        db, "+16505550002", **{TIMER: "gone2", "dailyPromptPending": pending(db, sent=-9 * hour, due=-4 * hour)}
    )
    aimless = await enroll(db, "+16505550003", **{TIMER: "gone3"})
    await manager(db, ConversationFlowRecovery(ConversationSettings())).recover_all()
    assert lost_events(db) == {early: 3600.0, late: 0.0, aimless: None}


async def test_recovering_twice_changes_nothing(db: Database) -> None:
    """The second run finds everything in order."""
    hour = timedelta(hours=1)
    await enroll(db, ADA, **{TIMER: "gone", "dailyPromptPending": pending(db, sent=-hour, due=hour)})
    db.change("DELETE FROM registered_hooks")
    recovery = manager(db, ConversationFlowRecovery(ConversationSettings()))
    assert (await recovery.recover_all()).components[-1].restored == 2
    assert sum(component.restored for component in (await recovery.recover_all()).components) == 0
    [delivery] = (await db.store.mailboxes.claim(db.claim())).items
    assert isinstance(delivery.event.event, TimerLost)


@pytest.mark.parametrize(
    ("ttl", "age", "left"), [(60, 20, 40.0), (60, 60, 0.0), (60, 600, 0.0), (None, 20, None), (60, -30, 90.0)]
)
def test_remaining_time_is_never_negative(ttl: float | None, age: float, left: float | None) -> None:
    """What is overdue is due now; without a time there is nothing to restore."""
    now = datetime(2026, 3, 1, tzinfo=UTC)
    lost = LostTimer(participant_id=ParticipantId("p"), job_id=JobId("j"), ended=False, state_data={})
    info = TimerRecoveryInfo(
        lost=lost,
        flow_type="f",
        data_key="k",
        original_ttl=None if ttl is None else timedelta(seconds=ttl),
        created_at=now - timedelta(seconds=age),
    )
    assert info.remaining(now) == left
