"""The conversation flow: what each event changes."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from promptpipe.flows.conversation import ConversationFlow, ConversationSettings, script
from promptpipe.flows.conversation.state import HISTORY_LIMIT
from promptpipe.flows.flow import FlowContext
from promptpipe.model.decisions import Decision, FlowState
from promptpipe.model.errors import CorruptStateError
from promptpipe.model.events import (
    Enrolled,
    Event,
    MessageFailed,
    MessageSent,
    Replied,
    TimerFired,
    TimerLost,
    decoded,
    encoded,
)
from promptpipe.model.ids import IdSource, JobId, MessageId, ParticipantId, ResponseId
from promptpipe.model.participants import Participant, ParticipantStatus
from tests.support.script import PROFILE

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PERSON = ParticipantId("person")
KEY = f"daily_prompt_reminder:{PERSON}"


class Conversation:
    """A conversation in progress: hands events to the flow, and keeps what it decides."""

    def __init__(self, **settings: timedelta) -> None:
        self.flow = ConversationFlow(ConversationSettings(**settings))
        self.state = FlowState(
            participant_id=PERSON,
            flow_type="conversation",
            current_state="CONVERSATION_ACTIVE",
            data={},
            version=1,
            created_at=NOW,
            updated_at=NOW,
        )
        self.now = NOW
        self._new_id = IdSource(lambda: self.now, random.Random(3).getrandbits)

    async def handle(self, event: Event) -> Decision:
        participant = Participant(
            id=PERSON,
            status=ParticipantStatus.ACTIVE,
            channel="whatsapp",
            addresses=(),
            created_at=NOW,
            updated_at=NOW,
            name="Ada",
        )
        context = FlowContext(participant=participant, now=self.now, new_id=self._new_id)
        decision = await self.flow.handle(event, self.state, context)
        if decision.state is not None:
            assert (decision.state.from_version, decision.state.flow_type) == (self.state.version, "conversation")
            self.state = replace(self.state, data=decision.state.data, version=self.state.version + 1)
        return decision

    async def hear(self, text: str, **other: object) -> list[str]:
        """Let the person say *text* and return what is said to them."""
        values: dict[str, object] = {
            "response_id": ResponseId("r"),
            "channel": "whatsapp",
            "type": "text",
            "text": text,
            "said_at": self.now,
            **other,
        }
        return said(await self.handle(Replied(**values)))  # type: ignore[arg-type]

    async def take_in(self) -> MessageId:
        """Go through the intake and return the id of the prompt."""
        await self.hear("hi")
        for field in script.INTAKE:
            await self.hear(PROFILE[field])
        return MessageId(str(self.pending["messageId"]))

    async def prompt(self) -> JobId:
        """Go through the intake, let the prompt be sent, and return the id of its reminder."""
        message_id = await self.take_in()
        await self.handle(MessageSent(flow_type="conversation", message_id=message_id, sent_at=self.now))
        return JobId(str(self.state.data["dailyPromptReminderTimerID"]))

    @property
    def pending(self) -> dict[str, object]:
        pending = self.state.data["dailyPromptPending"]
        assert isinstance(pending, dict)
        return pending

    def reminder(self, job_id: str, sent_at: object = None) -> TimerFired:
        payload = {"sentAt": sent_at or self.pending["sentAt"]}
        return TimerFired(job_id=JobId(job_id), job_kind="daily_prompt_reminder", dedupe_key=KEY, payload=payload)


def said(decision: Decision) -> list[str]:
    return [say.text for say in decision.say]


async def test_first_words_are_greeted_and_asked() -> None:
    """The opener is no answer to a question that was not asked yet."""
    conversation = Conversation()
    assert await conversation.hear("hi") == [script.greeting("Ada"), script.INTAKE["habit_domain"]]
    assert "userProfile" not in conversation.state.data


async def test_enrolled_by_someone_else_is_greeted_once() -> None:
    """Also when the event comes a second time, or after the person wrote first."""
    conversation = Conversation()
    enrolled = Enrolled(flow_type="conversation")
    assert said(await conversation.handle(enrolled)) == [script.greeting("Ada"), script.INTAKE["habit_domain"]]
    assert said(await conversation.handle(enrolled)) == []


async def test_intake_collects_the_profile_by_questions() -> None:
    """Each answer fills what was asked for, and brings the next question; the last brings a prompt."""
    conversation = Conversation()
    await conversation.hear("hi")
    answers = [await conversation.hear(PROFILE[field]) for field in script.INTAKE]
    questions = list(script.INTAKE.values())
    assert answers[:-1] == [[question] for question in questions[1:]]
    assert answers[-1] == [script.PROFILE_COMPLETE, script.habit_prompt(PROFILE)]
    assert conversation.state.data["userProfile"] == {"intensity": "normal", **PROFILE}
    assert conversation.state.data["lastHabitPrompt"] == script.habit_prompt(PROFILE)


async def test_history_holds_both_sides_and_the_newest_fifty() -> None:
    """Role, content and time of each turn."""
    conversation = Conversation()
    await conversation.hear("hi")
    history = conversation.state.data["conversationHistory"]
    assert isinstance(history, list)
    assert [turn["role"] for turn in history] == ["user", "assistant", "assistant"]
    assert history[0] == {"role": "user", "content": "hi", "timestamp": NOW.isoformat()}
    for number in range(60):
        await conversation.hear(str(number))
    history = conversation.state.data["conversationHistory"]
    assert isinstance(history, list)
    assert len(history) == HISTORY_LIMIT
    assert history[-1]["role"] == "assistant"


@pytest.mark.parametrize("odd", [{"type": "image", "text": "[image]"}, {"text": "   "}])
async def test_what_is_no_text_is_no_answer(odd: dict[str, str]) -> None:
    """A picture fills no field; the person is told."""
    conversation = Conversation()
    await conversation.hear("hi")
    text = odd.pop("text")
    assert await conversation.hear(text, **odd) == [script.IN_WORDS]
    assert script.first_missing(conversation.state.data.get("userProfile", {})) == "habit_domain"  # type: ignore[arg-type]


async def test_buttons_count_as_answers() -> None:
    """Their title is what the person said."""
    conversation = Conversation()
    await conversation.hear("hi")
    assert await conversation.hear("stretch", type="interactive", choice_id="b1") == [
        script.INTAKE["motivational_frame"]
    ]


async def test_reactions_are_taken_note_of_in_silence() -> None:
    """They ask for no answer."""
    conversation = Conversation()
    await conversation.hear("hi")
    before = conversation.state
    assert await conversation.hear("[reaction] 👍", type="reaction", conversational=False) == []
    assert conversation.state == before


async def test_old_message_is_remembered_but_not_answered() -> None:
    """After an outage, days of old messages come at once: nobody wants answers to them."""
    conversation = Conversation()
    await conversation.hear("hi")
    assert await conversation.hear("stretch", said_at=NOW - timedelta(hours=24, seconds=1)) == []
    assert "userProfile" not in conversation.state.data
    assert await conversation.hear("stretch", said_at=NOW - timedelta(hours=24)) != []


async def test_no_greatest_age_answers_everything() -> None:
    """Zero turns the limit off."""
    conversation = Conversation(max_reply_age=timedelta(0))
    assert await conversation.hear("hi", said_at=NOW - timedelta(days=300)) != []


# ---------------------------------------------------------------- the reminder


async def test_prompt_waits_for_its_sending_before_the_clock_starts() -> None:
    """Pending from the start, with nothing to remind of yet."""
    conversation = Conversation()
    message_id = await conversation.take_in()
    assert conversation.pending == {"messageId": message_id, "to": PERSON, "sentAt": None, "reminderDueAt": None}


async def test_sent_prompt_starts_the_reminder() -> None:
    """Five hours from when it was sent, under a key that a new prompt replaces."""
    conversation = Conversation()
    message_id = await conversation.take_in()
    sent_at = NOW + timedelta(minutes=7)
    decision = await conversation.handle(MessageSent(flow_type="conversation", message_id=message_id, sent_at=sent_at))
    [wake] = decision.wake
    assert (wake.kind, wake.key, wake.at) == ("daily_prompt_reminder", KEY, sent_at + timedelta(hours=5))
    assert wake.payload == {"sentAt": sent_at.isoformat()}
    data = conversation.state.data
    assert data["dailyPromptReminderTimerID"] == wake.id
    assert data["lastPromptSentAt"] == sent_at.isoformat()
    assert conversation.pending["reminderDueAt"] == (sent_at + timedelta(hours=5)).isoformat()
    assert conversation.state.data["userProfile"]["total_prompts"] == 1  # type: ignore[index]


async def test_reminder_of_zero_is_off() -> None:
    """The prompt still waits for an answer."""
    conversation = Conversation(reminder_delay=timedelta(0))
    message_id = await conversation.take_in()
    decision = await conversation.handle(MessageSent(flow_type="conversation", message_id=message_id, sent_at=NOW))
    assert decision.wake == ()
    assert conversation.pending["sentAt"] == NOW.isoformat()


async def test_due_reminder_is_said_once() -> None:
    """And clears what it was waiting for."""
    conversation = Conversation()
    job_id = await conversation.prompt()
    event = conversation.reminder(job_id)
    conversation.now += timedelta(hours=5)
    assert said(await conversation.handle(event)) == [script.reminder(PROFILE)]
    data = conversation.state.data
    assert {"dailyPromptPending", "dailyPromptReminderTimerID"}.isdisjoint(data)
    assert data["dailyPromptReminderSentAt"] == conversation.now.isoformat()
    assert said(await conversation.handle(event)) == []


async def test_reply_cancels_the_reminder_whatever_it_says() -> None:
    """By key, so that the timer goes with the commit that handles the reply."""
    conversation = Conversation()
    await conversation.prompt()
    decision = await conversation.handle(
        Replied(response_id=ResponseId("r"), channel="whatsapp", type="text", text="later", said_at=conversation.now)
    )
    assert decision.cancel == (KEY,)
    data = conversation.state.data
    assert {"dailyPromptPending", "dailyPromptReminderTimerID"}.isdisjoint(data)
    assert data["dailyPromptRespondedAt"] == conversation.now.isoformat()


async def test_reply_before_the_prompt_was_known_to_be_sent_stops_its_clock() -> None:
    """By mailbox order: the person answered before `sent` was handled."""
    conversation = Conversation()
    message_id = await conversation.take_in()
    await conversation.hear("done")
    decision = await conversation.handle(MessageSent(flow_type="conversation", message_id=message_id, sent_at=NOW))
    assert decision.wake == ()


async def test_reminder_of_an_older_prompt_says_nothing() -> None:
    """The conversation has moved on."""
    conversation = Conversation()
    job_id = await conversation.prompt()
    old = conversation.reminder(job_id)
    conversation.now += timedelta(hours=1)
    await conversation.hear("prompt")
    newer = MessageId(str(conversation.pending["messageId"]))
    await conversation.handle(MessageSent(flow_type="conversation", message_id=newer, sent_at=conversation.now))
    before = conversation.state
    assert said(await conversation.handle(old)) == []
    assert conversation.state == before


async def test_prompt_that_failed_is_not_waited_for() -> None:
    """Nobody is reminded of what they never got."""
    conversation = Conversation()
    message_id = await conversation.take_in()
    failed = MessageFailed(flow_type="conversation", message_id=message_id, error="131026")
    assert (await conversation.handle(failed)).cancel == (KEY,)
    assert "dailyPromptPending" not in conversation.state.data


async def test_done_counts_and_asking_brings_another_prompt() -> None:
    """The scripted coach goes on as long as the person does."""
    conversation = Conversation()
    await conversation.prompt()
    assert await conversation.hear("Done!") == [script.well_done(1)]
    assert await conversation.hear("prompt") == [script.ANOTHER_PROMPT, script.habit_prompt(PROFILE)]
    assert await conversation.hear("*done*") == [script.well_done(2)]
    assert await conversation.hear("too busy") == [script.KEEP_GOING]
    assert conversation.state.data["userProfile"]["success_count"] == 2  # type: ignore[index]


# ---------------------------------------------------------------- recovery


async def test_lost_reminder_starts_again_with_what_is_left() -> None:
    """Under a new id, which the state then names."""
    conversation = Conversation()
    job_id = await conversation.prompt()
    lost = TimerLost(flow_type="conversation", job_id=job_id, data_key="dailyPromptReminderTimerID", remaining=600.0)
    [wake] = (await conversation.handle(lost)).wake
    assert (wake.at, wake.payload) == (NOW + timedelta(seconds=600), {"sentAt": NOW.isoformat()})
    assert conversation.state.data["dailyPromptReminderTimerID"] == wake.id != job_id
    assert (await conversation.handle(lost)).wake == ()


async def test_ended_reminder_is_only_forgotten() -> None:
    """An operator canceled it: it is not started again."""
    conversation = Conversation()
    job_id = await conversation.prompt()
    lost = TimerLost(flow_type="conversation", job_id=job_id, data_key="dailyPromptReminderTimerID")
    assert (await conversation.handle(lost)).wake == ()
    assert "dailyPromptReminderTimerID" not in conversation.state.data


@pytest.mark.parametrize(
    "nonsense",
    [
        {"conversationHistory": "x"},
        {"userProfile": 7},
        {"dailyPromptPending": "yes"},
        {"dailyPromptPending": {"messageId": "m", "to": "p", "sentAt": "yesterday"}},
        {"dailyPromptPending": {"messageId": "m", "to": "p", "sentAt": 7}},
    ],
)
async def test_state_edited_into_nonsense_is_refused_by_name(nonsense: dict[str, object]) -> None:
    """The event fails with a reason that an operator can act on."""
    conversation = Conversation()
    await conversation.take_in()
    conversation.state = replace(conversation.state, data={**conversation.state.data, **nonsense})
    [key] = nonsense
    with pytest.raises(CorruptStateError, match=key):
        await conversation.hear("hello")


# ---------------------------------------------------------------- events

EVENTS: list[Event] = [
    Enrolled(flow_type="conversation"),
    Replied(response_id=ResponseId("r"), channel="whatsapp", type="text", text="hi", said_at=NOW, choice_id="c"),
    TimerFired(job_id=JobId("j"), job_kind="k", dedupe_key=None, payload={"a": [1, None]}),
    MessageSent(flow_type="f", message_id=MessageId("m"), sent_at=NOW),
    MessageFailed(flow_type="f", message_id=MessageId("m"), error="e"),
    TimerLost(flow_type="f", job_id=JobId("j"), data_key="d", remaining=1.5),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_events_survive_storage(event: Event) -> None:
    """What is read is what was written; what a newer version added is left out."""
    assert decoded(event.kind, {**encoded(event), "from_the_future": 1}) == event
