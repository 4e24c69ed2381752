"""The conversation flow: what each event changes, without a language model."""

from __future__ import annotations

from dataclasses import replace
from datetime import time, timedelta

import pytest

from promptpipe.flows.conversation import script
from promptpipe.flows.conversation.state import HISTORY_LIMIT
from promptpipe.model.errors import CorruptStateError, RefusedError
from promptpipe.model.events import Enrolled, FlowMoved, FlowReset, Signal
from tests.support.conversing import NOW, PERSON, Conversation, said
from tests.support.script import IN_HALF_A_DAY, PROFILE, ZONE


async def test_first_words_are_greeted_and_asked() -> None:
    """The opener is no answer to a question that was not asked yet."""
    conversation = Conversation()
    assert await conversation.hear("hi") == [script.greeting("Ada"), script.INTAKE["habit_domain"]]
    assert "userProfile" not in conversation.data


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
    promise = script.will_prompt(IN_HALF_A_DAY.time(), ZONE)
    assert answers == [
        [questions[1]],
        [questions[2]],
        [promise, questions[3]],
        [script.PROFILE_COMPLETE, script.habit_prompt(PROFILE)],
    ]
    assert conversation.profile == {"intensity": "normal", **PROFILE}
    assert conversation.data["lastHabitPrompt"] == script.habit_prompt(PROFILE)


async def test_history_holds_both_sides_and_the_newest_fifty() -> None:
    """Role, content and time of each turn."""
    conversation = Conversation()
    await conversation.hear("hi")
    history = conversation.data["conversationHistory"]
    assert isinstance(history, list)
    assert [turn["role"] for turn in history] == ["user", "assistant", "assistant"]
    assert history[0] == {"role": "user", "content": "hi", "timestamp": NOW.isoformat()}
    for number in range(60):
        await conversation.hear(str(number))
    history = conversation.data["conversationHistory"]
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
    assert conversation.profile == {}


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
    assert "userProfile" not in conversation.data
    assert await conversation.hear("stretch", said_at=NOW - timedelta(hours=24)) != []


async def test_no_greatest_age_answers_everything() -> None:
    """Zero turns the limit off."""
    conversation = Conversation(max_reply_age=timedelta(0))
    assert await conversation.hear("hi", said_at=NOW - timedelta(days=300)) != []


@pytest.mark.parametrize(
    ("answer", "hour", "minute"),
    [
        ("7:30", 7, 20),
        ("07.30", 7, 20),
        ("19h05", 18, 55),
        ("7 am", 6, 50),
        ("12:05 AM", 23, 55),
        ("12pm", 11, 50),
        ("in the evening", 18, 50),
        ("Noon would be fine", 11, 50),
        ("whenever", 8, 50),
        ("25:00", 8, 50),
    ],
)
async def test_time_that_suits_them_is_when_they_are_prompted(answer: str, hour: int, minute: int) -> None:
    """Ten minutes before it, every day, where they are; in the morning when no time can be made out."""
    conversation = Conversation()
    await conversation.hear("hi")
    for field in ("habit_domain", "motivational_frame"):
        await conversation.hear(PROFILE[field])
    await conversation.hear(answer)
    [new] = conversation.schedules.values()
    assert (new.recurrence.hour, new.recurrence.minute, new.recurrence.zone) == (hour, minute, ZONE)
    assert (new.kind, new.payload, new.participant_id) == ("scheduled_prompt", {"prompt": "conversation"}, PERSON)
    assert conversation.profile["preferred_time"] == answer
    [entry] = conversation.data["scheduleRegistry"]
    assert (entry["id"], entry["type"], entry["timezone"], entry["timerID"]) == (new.id, "fixed", ZONE, new.id)


async def test_other_time_takes_the_place_of_the_one_before() -> None:
    """On a word; what is no time is no such wish."""
    conversation = Conversation()
    await conversation.take_in()
    [before] = conversation.schedules
    assert await conversation.hear("time 18:30") == [script.will_prompt(time(18, 30), ZONE)]
    [after] = conversation.schedules
    assert (after != before, [entry["id"] for entry in conversation.data["scheduleRegistry"]]) == (True, [after])
    assert conversation.profile["preferred_time"] == "18:30"
    assert await conversation.hear("time flies") == [script.KEEP_GOING]


async def test_asking_brings_another_prompt() -> None:
    """The scripted coach goes on as long as the person does."""
    conversation = Conversation()
    await conversation.prompt()
    assert await conversation.hear("Done!") == [script.well_done(1)]
    assert await conversation.hear("prompt") == [script.ANOTHER_PROMPT, script.habit_prompt(PROFILE)]
    assert await conversation.hear("*done*") == [script.well_done(2)]
    assert await conversation.hear("too busy") == [script.KEEP_GOING]


async def test_feedback_collects_what_a_model_would() -> None:
    """One question after the other; with the last answer the conversation goes back."""
    conversation = Conversation()
    await conversation.prompt()
    await conversation.handle(FlowMoved(flow_type="conversation", target_state="FEEDBACK"))
    questions = list(script.FEEDBACK.values())
    assert await conversation.hear("done") == [script.well_done(1), questions[0]]
    assert await conversation.hear("noise") == [questions[1]]
    assert await conversation.hear("[image]", type="image") == [script.IN_WORDS]
    assert await conversation.hear("music") == [questions[2]]
    assert await conversation.hear("earlier") == [script.FEEDBACK_GIVEN]
    assert {name: conversation.profile[name] for name in script.FEEDBACK} == {
        "last_barrier": "noise",
        "last_motivator": "music",
        "last_tweak": "earlier",
    }
    assert (conversation.data["conversationState"], conversation.data["feedbackState"]) == ("INTAKE", "completed")
    assert await conversation.hear("hello") == [script.KEEP_GOING]
    await conversation.handle(FlowMoved(flow_type="conversation", target_state="FEEDBACK"))
    assert await conversation.hear("it went well") == [script.THANKS, questions[0]]


async def test_background_is_what_is_known_from_elsewhere() -> None:
    """Name, gender, ethnicity and background, as far as they are known."""
    conversation = Conversation()
    conversation.participant = replace(conversation.participant, gender="f", background="Works nights.")
    await conversation.handle(Enrolled(flow_type="conversation"))
    assert conversation.data["participantBackground"] == "Name: Ada\nGender: f\nBackground: Works nights."
    nobody = Conversation()
    nobody.participant = replace(nobody.participant, name=None)
    await nobody.hear("hi")
    assert "participantBackground" not in nobody.data


# ---------------------------------------------------------------- operators


async def test_operator_moves_the_conversation() -> None:
    """By the names of its modules, in any case; another name is refused, and nothing changes."""
    conversation = Conversation()
    await conversation.prompt()
    for target in ("FEEDBACK", "intake", " Feedback "):
        await conversation.handle(FlowMoved(flow_type="conversation", target_state=target))
        assert conversation.data["conversationState"] == target.strip().upper()
        assert "auto_feedback_enforcement" not in conversation.running()
    with pytest.raises(RefusedError, match="no state 'LIMBO'; it has: INTAKE, FEEDBACK"):
        await conversation.handle(FlowMoved(flow_type="conversation", target_state="LIMBO"))


async def test_operator_lets_it_begin_again() -> None:
    """Nothing is remembered, no timer runs, nothing is scheduled; they are greeted anew."""
    conversation = Conversation()
    await conversation.prompt()
    assert (len(conversation.running()), len(conversation.schedules)) == (3, 1)
    decision = await conversation.handle(FlowReset(flow_type="conversation"))
    assert said(decision) == [script.greeting("Ada"), script.INTAKE["habit_domain"]]
    assert (conversation.running(), conversation.schedules) == ({}, {})
    assert set(conversation.data) == {"participantBackground", "conversationHistory"}


async def test_events_from_elsewhere_are_none_of_its_business() -> None:
    """Whoever sends one is told."""
    with pytest.raises(RefusedError, match="no event 'paid'"):
        await Conversation().handle(Signal(flow_type="conversation", name="paid"))


@pytest.mark.parametrize(
    "nonsense",
    [
        {"conversationHistory": "x"},
        {"conversationHistory": ["x"]},
        {"conversationState": "LIMBO"},
        {"userProfile": 7},
        {"feedbackState": "lost"},
        {"dailyPromptPending": "yes"},
        {"dailyPromptPending": {"messageId": "m", "to": "p", "sentAt": "yesterday"}},
        {"dailyPromptPending": {"messageId": "m", "to": "p", "sentAt": "2026-03-01T12:00:00"}},
        {"dailyPromptPending": {"messageId": "m", "to": "p", "sentAt": 7}},
    ],
    ids=lambda nonsense: str(nonsense)[:50],
)
async def test_state_edited_into_nonsense_is_refused_by_name(nonsense: dict[str, object]) -> None:
    """The event fails with a reason that an operator can act on."""
    conversation = Conversation()
    await conversation.take_in()
    conversation.edit(**nonsense)
    [key] = nonsense
    with pytest.raises(CorruptStateError, match=key):
        await conversation.hear("hello")
