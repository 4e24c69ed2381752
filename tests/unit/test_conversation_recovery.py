"""The conversation's timers when their jobs are gone: how long each had, and what starts it again."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from promptpipe.flows.conversation import ConversationSettings
from promptpipe.flows.conversation.lost import life_of
from promptpipe.flows.conversation.state import ConversationState, Module, PendingTransition
from promptpipe.flows.conversation.timers import (
    AUTO_FEEDBACK,
    FEEDBACK_FOLLOWUP,
    FEEDBACK_TIMEOUT,
    REMINDER,
    STATE_TRANSITION,
    TIMERS,
)
from promptpipe.model.events import TimerLost
from tests.support.conversing import NOW, Conversation, job

if TYPE_CHECKING:
    from datetime import datetime

    from promptpipe.flows.conversation.timers import Timer

SETTINGS = ConversationSettings()
SENT = {"lastPromptSentAt": NOW.isoformat()}
IN_AN_HOUR = PendingTransition(Module.FEEDBACK, NOW + timedelta(hours=1))
PENDING = {
    "messageId": "m",
    "to": "p",
    "sentAt": NOW.isoformat(),
    "reminderDueAt": (NOW + timedelta(hours=2)).isoformat(),
}


async def with_all_timers() -> Conversation:
    """Return a conversation in which each of the five timers runs."""
    conversation = Conversation()
    await conversation.prompt()
    await conversation.fire("feedback_timeout")
    conversation.edit(stateTransition=IN_AN_HOUR.to_data(), stateTransitionTimerID="transition")
    assert {timer.data_key for timer in TIMERS} - set(conversation.data) == {FEEDBACK_TIMEOUT.data_key}
    conversation.edit(**{FEEDBACK_TIMEOUT.data_key: "timeout"})
    return conversation


def lost(conversation: Conversation, timer: Timer, remaining: float | None) -> TimerLost:
    job_id = job(conversation.data[timer.data_key])
    return TimerLost(flow_type="conversation", job_id=job_id, data_key=timer.data_key, remaining=remaining)


@pytest.mark.parametrize("timer", TIMERS, ids=lambda timer: timer.kind)
async def test_lost_timer_starts_again_with_what_is_left(timer: Timer) -> None:
    """Under a new id, which the state then names, and once: the job that is gone is forgotten."""
    conversation = await with_all_timers()
    event = lost(conversation, timer, 600.0)
    [wake] = (await conversation.handle(event)).wake
    assert (wake.kind, wake.key, wake.at) == (
        timer.kind,
        f"{timer.key_name}:person",
        conversation.now + timedelta(seconds=600),
    )
    assert conversation.data[timer.data_key] == wake.id != event.job_id
    assert (wake.payload == {"sentAt": NOW.isoformat()}) is (timer is REMINDER)
    assert (await conversation.handle(event)).wake == ()


@pytest.mark.parametrize("timer", TIMERS, ids=lambda timer: timer.kind)
async def test_ended_timer_is_only_forgotten(timer: Timer) -> None:
    """An operator canceled it: it is not started again."""
    conversation = await with_all_timers()
    assert (await conversation.handle(lost(conversation, timer, None))).wake == ()
    assert timer.data_key not in conversation.data


async def test_nothing_is_started_for_what_is_over() -> None:
    """The prompt was answered between the finding and the event: its reminder is not needed."""
    conversation = await with_all_timers()
    event = lost(conversation, REMINDER, 600.0)
    conversation.edit(dailyPromptPending=None)
    assert (await conversation.handle(event)).wake == ()
    assert REMINDER.data_key not in conversation.data


async def test_key_that_is_no_timer_changes_nothing() -> None:
    """A newer version may have had one."""
    conversation = await with_all_timers()
    before = conversation.state
    event = TimerLost(flow_type="conversation", job_id=job("j"), data_key="futureTimerID", remaining=1.0)
    await conversation.handle(event)
    assert conversation.state == before


@pytest.mark.parametrize(
    ("timer", "data", "life"),
    [
        (REMINDER, {"dailyPromptPending": PENDING}, (NOW, timedelta(hours=2))),
        (REMINDER, {"dailyPromptPending": {**PENDING, "sentAt": None, "reminderDueAt": None}}, None),
        (REMINDER, {}, None),
        (AUTO_FEEDBACK, SENT, (NOW, timedelta(minutes=5))),
        (AUTO_FEEDBACK, {}, None),
        (FEEDBACK_TIMEOUT, SENT, (NOW, timedelta(minutes=15))),
        (FEEDBACK_TIMEOUT, {}, None),
        (FEEDBACK_FOLLOWUP, SENT, (NOW, timedelta(hours=3, minutes=15))),
        (FEEDBACK_FOLLOWUP, {}, None),
        (STATE_TRANSITION, {"stateTransition": IN_AN_HOUR.to_data()}, (IN_AN_HOUR.due_at, timedelta(0))),
        (STATE_TRANSITION, {}, None),
    ],
)
def test_state_says_how_long_a_timer_had(
    timer: Timer, data: dict[str, object], life: tuple[datetime, timedelta] | None
) -> None:
    """From when, and for how long; without what the timer was for there is nothing to restore."""
    assert life_of(timer, ConversationState(data), SETTINGS) == life
