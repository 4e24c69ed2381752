"""Prompts of the conversation: what is noted of them, reminders and polls, with the figures that they are to have."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from promptpipe.flows.conversation import script
from promptpipe.flows.conversation.prompts import habit_prompt
from promptpipe.model.errors import CorruptStateError
from promptpipe.model.events import MessageFailed, Replied
from promptpipe.model.ids import MessageId, ResponseId
from promptpipe.model.messages import Choices, MessageClass, Text
from promptpipe.model.prompts import ConversationPrompt, PromptOrder
from tests.support.conversing import NOW, PERSON, Conversation, choices_of, said
from tests.support.script import PROFILE

REMINDER_KEY = f"daily_prompt_reminder:{PERSON}"
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
CLOCKS = {
    "daily_prompt_reminder": 5 * HOUR,
    "auto_feedback_enforcement": 5 * MINUTE,
    "feedback_timeout": 15 * MINUTE,
}
"""What a prompt that was sent starts."""


# ---------------------------------------------------------------- sending


async def test_prompt_waits_for_its_sending_before_the_clocks_start() -> None:
    """Pending from the start, with nothing to remind of yet."""
    conversation = Conversation()
    message_id = await conversation.take_in()
    assert conversation.pending == {"messageId": message_id, "to": PERSON, "sentAt": None, "reminderDueAt": None}
    assert conversation.running() == {}


async def test_sent_prompt_starts_the_clocks() -> None:
    """From when it was sent, under keys that a new prompt's replace."""
    conversation = Conversation()
    message_id = await conversation.take_in()
    await conversation.pass_time(minutes=7)
    await conversation.sent(message_id)
    assert conversation.running() == CLOCKS
    assert {wake.kind: key for key, wake in conversation.timers.items()} == {
        "daily_prompt_reminder": REMINDER_KEY,
        "auto_feedback_enforcement": f"auto_feedback:{PERSON}",
        "feedback_timeout": f"feedback_timeout:{PERSON}",
    }
    assert conversation.timers[REMINDER_KEY].payload == {"sentAt": conversation.now.isoformat()}
    assert conversation.data["lastPromptSentAt"] == conversation.now.isoformat()
    assert conversation.pending["reminderDueAt"] == (conversation.now + 5 * HOUR).isoformat()
    assert conversation.data["feedbackState"] == "waiting_initial"
    assert conversation.profile["total_prompts"] == 1


@pytest.mark.parametrize(
    ("setting", "kind"),
    [
        ("reminder_delay", "daily_prompt_reminder"),
        ("auto_feedback_delay", "auto_feedback_enforcement"),
        ("feedback_timeout", "feedback_timeout"),
    ],
)
async def test_clock_of_zero_is_off(setting: str, kind: str) -> None:
    """The others run; the prompt still waits for an answer."""
    conversation = Conversation(None, **{setting: timedelta(0)})
    await conversation.prompt()
    assert conversation.running() == {name: span for name, span in CLOCKS.items() if name != kind}
    assert conversation.pending["sentAt"] == NOW.isoformat()


async def test_conversations_own_prompt_is_sent_as_ordered() -> None:
    """As the order's message, with its key and its end, after replies; once a day it is asked how hard it may be."""
    conversation = Conversation()
    await conversation.take_in()
    order = PromptOrder(
        prompt=ConversationPrompt(), message_id=MessageId("m"), scheduled=True, expires_at=NOW + HOUR, dedupe_key="k"
    )
    decision = await conversation.flow.prompt(order, None, conversation.state, conversation.context)
    prompt, poll = decision.say
    assert (prompt.id, prompt.dedupe_key, prompt.awaited_by, prompt.expires_at, prompt.message_class) == (
        "m",
        "k",
        "conversation",
        NOW + HOUR,
        MessageClass.BROADCAST,
    )
    assert (poll.dedupe_key, poll.awaited_by, poll.expires_at, poll.message_class) == (
        None,
        None,
        NOW + HOUR,
        MessageClass.BROADCAST,
    )
    assert said(decision) == [script.habit_prompt(PROFILE), script.INTENSITY_QUESTION]
    assert choices_of(decision) == [["Done", "Not now"], ["Easier", "As they are", "Harder"]]


async def test_somebody_elses_prompt_is_waited_for_too() -> None:
    """It says what it says: no poll of the coach's goes with it."""
    conversation = Conversation()
    assert await conversation.order(Text("Drink water")) == ["Drink water"]
    assert conversation.data["conversationHistory"][-1]["content"] == "Drink water"
    await conversation.sent(MessageId(str(conversation.pending["messageId"])))
    assert conversation.running() == CLOCKS
    assert "lastHabitPrompt" not in conversation.data


async def test_new_prompt_replaces_the_reminder_of_the_one_before() -> None:
    """Nobody is reminded of what is not the latest."""
    conversation = Conversation()
    await conversation.prompt()
    await conversation.pass_time(hours=1)
    decision = await conversation.handle(old := conversation.fired("feedback_timeout"))
    assert said(decision) == [script.ASK_FEEDBACK]
    assert old.job_id not in conversation.data.values()
    await conversation.order()
    assert "daily_prompt_reminder" not in conversation.running()
    await conversation.sent(MessageId(str(conversation.pending["messageId"])))
    assert conversation.running() == CLOCKS
    assert conversation.profile["total_prompts"] == 2


async def test_prompt_that_failed_is_not_waited_for() -> None:
    """Nobody is reminded of, or asked about, what they never got."""
    conversation = Conversation()
    message_id = await conversation.take_in()
    failed = MessageFailed(flow_type="conversation", message_id=message_id, error="131026")
    await conversation.handle(failed)
    assert "dailyPromptPending" not in conversation.data
    conversation = Conversation()
    await conversation.prompt()
    await conversation.handle(replace(failed, message_id=MessageId(str(conversation.pending["messageId"]))))
    assert conversation.running() == {}
    await conversation.order()
    await conversation.handle(replace(failed, message_id=MessageId("another")))
    assert conversation.pending["messageId"] != "another"


async def test_sending_of_another_message_starts_nothing() -> None:
    """A prompt that somebody has answered before it was known to be sent, or an older one."""
    conversation = Conversation()
    message_id = await conversation.take_in()
    await conversation.hear("done")
    await conversation.sent(message_id)
    assert conversation.running() == {}
    assert conversation.profile["total_prompts"] == 1


# ---------------------------------------------------------------- the reminder


async def test_due_reminder_is_said_once() -> None:
    """And clears what it was waiting for."""
    conversation = Conversation()
    await conversation.prompt()
    event = conversation.fired("daily_prompt_reminder")
    assert said(await conversation.handle(event)) == [script.reminder(PROFILE)]
    assert {"dailyPromptPending", "dailyPromptReminderTimerID"}.isdisjoint(conversation.data)
    assert conversation.data["dailyPromptReminderSentAt"] == (NOW + 5 * HOUR).isoformat()
    assert said(await conversation.handle(event)) == []


async def test_reply_cancels_the_reminder_whatever_it_says() -> None:
    """By key, so that the timer goes with the commit that handles the reply."""
    conversation = Conversation()
    await conversation.prompt()
    reply = Replied(response_id=ResponseId("r"), channel="whatsapp", type="image", text="[image]", said_at=NOW)
    assert REMINDER_KEY in (await conversation.handle(reply)).cancel
    assert {"dailyPromptPending", "dailyPromptReminderTimerID"}.isdisjoint(conversation.data)
    assert conversation.data["dailyPromptRespondedAt"] == conversation.now.isoformat()


async def test_reply_that_a_prompts_own_handler_has_taken_is_one_too() -> None:
    """It and its answer are remembered, and the reminder goes."""
    conversation = Conversation()
    await conversation.prompt()
    reply = Replied(response_id=ResponseId("r"), channel="whatsapp", type="text", text="tea", said_at=NOW)
    decision = await conversation.flow.answered(reply, Text("Here."), conversation.state, conversation.context)
    assert (said(decision), REMINDER_KEY in decision.cancel) == ([], True)
    conversation.keep(decision)
    assert [turn["content"] for turn in conversation.data["conversationHistory"]][-2:] == ["tea", "Here."]


async def test_reminder_of_an_older_prompt_says_nothing() -> None:
    """The conversation has moved on."""
    conversation = Conversation()
    await conversation.prompt()
    old = replace(conversation.fired("daily_prompt_reminder"))
    await conversation.hear("prompt")
    await conversation.sent(MessageId(str(conversation.pending["messageId"])))
    before = conversation.state
    assert said(await conversation.handle(old)) == []
    assert conversation.state == before


# ---------------------------------------------------------------- polls


async def test_done_counts_once_for_each_prompt() -> None:
    """By its button, whenever it is tapped, or in a word of the latest; twice it was one success."""
    conversation = Conversation()
    first = await conversation.prompt()
    assert await conversation.tap("done", first) == [script.well_done(1)]
    for again in (conversation.tap("done", first), conversation.hear("done"), conversation.tap("not_now", first)):
        assert await again == [script.KEEP_GOING]
    second = await conversation.order_and_send()
    assert await conversation.hear("Done.") == [script.well_done(2)]
    assert await conversation.tap("done", second) == [script.KEEP_GOING]
    third = await conversation.order_and_send()
    fourth = await conversation.order_and_send()
    assert await conversation.tap("done", third) == [script.well_done(3)]
    assert await conversation.tap("done", fourth) == [script.well_done(4)]
    assert conversation.profile["success_count"] == 4


async def test_done_is_a_word_like_others_where_there_was_no_poll() -> None:
    """In the intake, or after somebody else's prompt."""
    conversation = Conversation()
    await conversation.hear("hi")
    await conversation.hear("done")
    assert conversation.profile == {"intensity": "normal", "habit_domain": "done"}
    await conversation.order(Text("Drink water"))
    await conversation.hear("done")
    assert "success_count" not in conversation.profile


@pytest.mark.parametrize("level", ["low", "normal", "high"])
async def test_intensity_is_set_by_its_poll(level: str) -> None:
    """And the next prompts follow it."""
    conversation = Conversation()
    await conversation.prompt()
    assert await conversation.tap(f"intensity:{level}") == [script.INTENSITY_SET[level]]
    assert conversation.profile["intensity"] == level
    assert script.PRECISE[level] in (await conversation.order())[0]
    await conversation.tap("intensity:brutal")
    assert conversation.profile["intensity"] == level


@pytest.mark.parametrize(
    ("zone", "at", "asked"),
    [
        ("America/Toronto", (2026, 3, 2, 4, 59), False),
        ("America/Toronto", (2026, 3, 2, 5, 0), True),
        (None, (2026, 3, 1, 23, 59), False),
        (None, (2026, 3, 2, 0, 0), True),
        ("Pacific/Kiritimati", (2026, 3, 2, 9, 59), False),
        ("Pacific/Kiritimati", (2026, 3, 2, 10, 0), True),
        ("Mars/Olympus", (2026, 3, 2, 0, 0), True),
    ],
)
async def test_intensity_is_asked_once_a_day(zone: str | None, at: tuple[int, ...], asked: bool) -> None:
    """The day is that of the participant; in no zone, or one that does not exist, that of UTC."""
    conversation = Conversation()
    conversation.participant = replace(conversation.participant, timezone=zone)
    await conversation.take_in()
    assert len(await conversation.order()) == 2
    assert len(await conversation.order()) == 1
    conversation.now = datetime(*at, tzinfo=UTC)  # type: ignore[misc,arg-type]
    assert (len(await conversation.order()) == 2) is asked


async def test_poll_date_edited_into_nonsense_fails_its_prompt() -> None:
    """By name."""
    conversation = Conversation()
    conversation.edit(lastIntensityPromptDate="soon")
    with pytest.raises(CorruptStateError, match="lastIntensityPromptDate"):
        await conversation.order()


def test_prompts_poll_goes_with_its_message() -> None:
    """Its buttons name it, so that an answer is known to be that one's."""
    content = habit_prompt("Stretch", MessageId("m"))
    assert isinstance(content, Choices)
    assert [choice.id for choice in content.choices] == ["m:done", "m:not_now"]
