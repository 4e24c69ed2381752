"""Feedback in the conversation: its clocks and transitions, with the figures that they are to have."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from promptpipe.flows.conversation import script
from promptpipe.model.errors import CorruptStateError
from promptpipe.model.events import FlowMoved, MessageSent, Replied, TimerFired
from promptpipe.model.ids import MessageId, ResponseId
from tests.support.conversing import NOW, PERSON, Conversation, job, said

REMINDER_KEY = f"daily_prompt_reminder:{PERSON}"
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
CLOCKS = {
    "daily_prompt_reminder": 5 * HOUR,
    "auto_feedback_enforcement": 5 * MINUTE,
    "feedback_timeout": 15 * MINUTE,
}
"""What a prompt that was sent starts."""


async def test_feedback_begins_five_minutes_after_a_prompt() -> None:
    """Unless the conversation is there already, or another prompt was sent within the last four and a half minutes."""
    conversation = Conversation()
    await conversation.prompt()
    assert await conversation.fire("auto_feedback_enforcement") == []
    assert conversation.now == NOW + 5 * MINUTE
    assert conversation.data["conversationState"] == "FEEDBACK"
    before = conversation.state
    event = TimerFired(job_id=job("j"), job_kind="auto_feedback_enforcement", dedupe_key=None)
    await conversation.handle(event)
    assert conversation.state == before


@pytest.mark.parametrize(("ago", "moves"), [(timedelta(seconds=269), False), (timedelta(seconds=270), True)])
async def test_newer_prompt_has_a_feedback_of_its_own(ago: timedelta, moves: bool) -> None:
    """That of the one before is not enforced."""
    conversation = Conversation()
    await conversation.prompt()
    event = conversation.fired("auto_feedback_enforcement")
    newer = MessageSent(flow_type="conversation", message_id=MessageId("newer"), sent_at=conversation.now - ago)
    await conversation.handle(newer)
    await conversation.handle(event)
    assert ("conversationState" in conversation.data) is moves


async def test_how_it_went_is_asked_and_asked_once_more() -> None:
    """After a quarter of an hour and three hours, as long as nobody has said so."""
    conversation = Conversation()
    await conversation.prompt()
    assert await conversation.fire("feedback_timeout") == [script.ASK_FEEDBACK]
    assert conversation.now == NOW + 15 * MINUTE
    assert conversation.running()["feedback_followup"] == 3 * HOUR
    assert conversation.data["feedbackState"] == "waiting_initial"
    assert await conversation.fire("feedback_followup") == [script.FOLLOW_UP]
    assert conversation.data["feedbackState"] == "followup_sent"
    assert set(conversation.running()) == {"daily_prompt_reminder", "auto_feedback_enforcement"}


async def test_answer_in_feedback_ends_the_asking() -> None:
    """Both timers are canceled; what fires all the same says nothing."""
    conversation = Conversation()
    await conversation.prompt()
    await conversation.fire("auto_feedback_enforcement")
    event = replace(conversation.fired("feedback_timeout"))
    await conversation.handle(event)
    follow_up = conversation.fired("feedback_followup")
    conversation.timers[f"feedback_followup:{PERSON}"] = conversation.timers.pop(REMINDER_KEY)
    decision = await conversation.handle(
        Replied(response_id=ResponseId("r"), channel="whatsapp", type="text", text="fine", said_at=conversation.now)
    )
    assert f"feedback_followup:{PERSON}" in decision.cancel
    assert conversation.data["feedbackState"] == "completed"
    assert {"feedbackTimerID", "feedbackFollowupTimerID"}.isdisjoint(conversation.data)
    for late in (event, follow_up):
        assert said(await conversation.handle(late)) == []


async def test_who_has_answered_is_not_asked_again_in_the_intake_either() -> None:
    """Before they were asked, what they say in the intake is no feedback; after it, it is."""
    conversation = Conversation()
    await conversation.prompt()
    await conversation.hear("thanks")
    assert "feedback_timeout" in conversation.running()
    await conversation.fire("feedback_timeout")
    await conversation.hear("it went well")
    assert (conversation.data["feedbackState"], "feedback_followup" in conversation.running()) == ("completed", False)


async def test_prompt_begins_feedback_anew() -> None:
    """Whatever the last one came to."""
    conversation = Conversation()
    await conversation.prompt()
    await conversation.fire("feedback_timeout")
    await conversation.fire("feedback_followup")
    await conversation.order_and_send()
    assert conversation.data["feedbackState"] == "waiting_initial"
    assert set(conversation.running()) == set(CLOCKS)


@pytest.mark.parametrize("module", ["INTAKE", "FEEDBACK"])
async def test_transition_comes_after_its_delay(module: str) -> None:
    """Unless the conversation is there by then; any transition ends the waiting for another, and enforced feedback."""
    conversation = Conversation()
    await conversation.prompt()
    conversation.edit(
        stateTransition={"target": "FEEDBACK", "dueAt": NOW.isoformat()},
        stateTransitionTimerID="t",
        conversationState=module,
    )
    await conversation.handle(TimerFired(job_id=job("t"), job_kind="state_transition", dedupe_key=None))
    assert conversation.data["conversationState"] == "FEEDBACK"
    assert {"stateTransition", "stateTransitionTimerID"}.isdisjoint(conversation.data)
    assert ("auto_feedback_enforcement" in conversation.running()) is (module == "FEEDBACK")
    before = conversation.state
    await conversation.handle(TimerFired(job_id=job("t"), job_kind="state_transition", dedupe_key=None))
    assert conversation.state == before


async def test_operators_transition_ends_the_one_that_waits() -> None:
    """The later word counts."""
    conversation = Conversation()
    conversation.edit(stateTransition={"target": "FEEDBACK", "dueAt": NOW.isoformat()}, stateTransitionTimerID="t")
    decision = await conversation.handle(FlowMoved(flow_type="conversation", target_state="INTAKE"))
    assert decision.cancel == (f"state_transition:{PERSON}",)
    assert {"stateTransition", "stateTransitionTimerID"}.isdisjoint(conversation.data)


@pytest.mark.parametrize(
    ("kind", "nonsense"),
    [
        ("state_transition", {"stateTransition": {"target": "LIMBO", "dueAt": NOW.isoformat()}}),
        ("state_transition", {"stateTransition": {"target": "INTAKE"}}),
        ("auto_feedback_enforcement", {"lastPromptSentAt": "yesterday"}),
        ("auto_feedback_enforcement", {"conversationState": 7}),
        ("feedback_timeout", {"feedbackState": "who knows"}),
    ],
)
async def test_timer_meets_nonsense_by_name(kind: str, nonsense: dict[str, object]) -> None:
    """The event fails with a reason that an operator can act on."""
    conversation = Conversation()
    conversation.edit(**nonsense)
    [key] = nonsense
    with pytest.raises(CorruptStateError, match=key):
        await conversation.handle(TimerFired(job_id=job("t"), job_kind=kind, dedupe_key=None))
