"""The conversation with a language model: what it is told, what it may have done, and what becomes of nonsense."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio

from promptpipe.flows.conversation import script
from promptpipe.flows.conversation.coach import ANSWER_SECONDS, NEW_HERE, ROUNDS
from promptpipe.flows.tone import Tone, UpdateSource, guide
from promptpipe.model.events import Enrolled, FlowReset
from tests.support.coaching import told, use, wishes
from tests.support.conversing import NOW, TEXTS, Conversation, said
from tests.support.prompting import ScriptedModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio.testing import MockClock

    from promptpipe.model.chat import ChatMessage, Generated, Tool


# ---------------------------------------------------------------- the loop


async def test_model_is_told_what_it_is_about_whom_how_and_what_was_said() -> None:
    """In this order; the new message last, once."""
    model = ScriptedModel("Hello.", "I see.")
    conversation = Conversation(model)
    tone = Tone().updated(["concise"], UpdateSource.EXPLICIT, NOW).to_data()
    conversation.edit(userProfile={"habit_domain": "stretch", "tone": tone}, lastHabitPrompt="Stretch now")
    assert await conversation.hear("hi") == ["Hello."]
    assert await conversation.hear("how are you?") == ["I see."]
    [intake, context, tone_guide, *chat] = told(model)
    assert intake == ("system", TEXTS.intake)
    assert context[0] == "system"
    for line in (
        "It is Sunday, 2026-03-01 12:00 where this person is.",
        "Name: Ada",
        "- habit_domain: stretch",
        "Still missing: motivational_frame, preferred_time, prompt_anchor",
        "The latest prompt: Stretch now",
    ):
        assert line in context[1].splitlines()
    assert tone_guide == ("system", guide(Tone(tags=("concise",))))
    assert chat == [("user", "hi"), ("assistant", "Hello."), ("user", "how are you?")]
    assert [turn["content"] for turn in conversation.data["conversationHistory"]] == [
        "hi",
        "Hello.",
        "how are you?",
        "I see.",
    ]


@pytest.mark.parametrize(("limit", "sent"), [(-1, 30), (0, 0), (1, 1), (7, 7), (100, 30)])
async def test_model_is_given_so_many_of_the_last_turns(limit: int, sent: int) -> None:
    """At most thirty, whatever is set; the new message comes besides."""
    model = ScriptedModel(*(f"a{n}" for n in range(40)))
    conversation = Conversation(model, history_limit=limit)
    for number in range(40):
        await conversation.hear(f"q{number}")
    chat = [content for role, content in told(model) if role != "system"]
    turns = [text for number in range(39) for text in (f"q{number}", f"a{number}")]
    assert chat == [*(turns[-sent:] if sent else []), "q39"]


async def test_tools_are_those_of_the_module() -> None:
    """All four in the intake; in feedback no prompt is written."""

    class Noting(ScriptedModel):
        tools: Sequence[Tool] = ()

        async def generate(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> Generated:
            self.tools = tools
            return await super().generate(messages, tools)

    model = Noting("a", "b")
    conversation = Conversation(model)
    await conversation.hear("hi")
    both = {"save_user_profile", "scheduler", "transition_state"}
    assert {tool.name for tool in model.tools} == both | {"generate_habit_prompt"}
    assert all(tool.parameters["type"] == "object" for tool in model.tools)
    conversation.edit(conversationState="FEEDBACK")
    await conversation.hear("hi")
    assert {tool.name for tool in model.tools} == both
    assert told(model)[0] == ("system", TEXTS.feedback)


async def test_tools_are_used_until_there_is_a_text() -> None:
    """Their results go back to the model, in order; calls and results are not remembered."""
    model = ScriptedModel(
        wishes(("save_user_profile", {"habit_domain": "stretch"}), ("scheduler", {"action": "list"})),
        wishes(("save_user_profile", {"habit_domain": "stretch"})),
        "Noted.",
    )
    conversation = Conversation(model)
    assert await conversation.hear("I want to stretch") == ["Noted."]
    [call, first, second] = model.asked[1][-3:]
    assert [item.name for item in call.tool_calls] == ["save_user_profile", "scheduler"]
    assert (first.tool_call_id, json.loads(first.content)["status"]) == ("c0", "success")
    assert (second.tool_call_id, json.loads(second.content)) == ("c1", {"status": "success", "schedules": []})
    assert json.loads(model.asked[2][-1].content)["status"] == "noop"
    assert len(conversation.data["conversationHistory"]) == 2


async def test_text_beside_tools_is_the_answer_if_they_work() -> None:
    """If one does not, the model is told, and says what it has to say then."""
    model = ScriptedModel(
        wishes(("save_user_profile", {"habit_domain": "stretch"}), text="Saved!"),
        wishes(("scheduler", {"action": "delete", "schedule_id": "x"}), text="Deleted!"),
        "There is none.",
    )
    conversation = Conversation(model)
    assert await conversation.hear("I want to stretch") == ["Saved!"]
    assert conversation.profile["habit_domain"] == "stretch"
    assert await conversation.hear("delete x") == ["There is none."]


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("fly", {}, "there is no tool 'fly'"),
        ("", {}, "there is no tool ''"),
        ("save_user_profile", "{", "not JSON"),
        ("save_user_profile", "[1]", "not a JSON object"),
        ("save_user_profile", "[" * 100_000, "not JSON"),
        ("save_user_profile", {"tone_tags": ["formal"], "tone_update_source": "rumour"}, "must be one of"),
        ("save_user_profile", {"tone_tags": ["formal"], "tone_confidence": "high"}, "must be a number"),
        ("save_user_profile", '{"tone_tags": ["formal"], "tone_confidence": NaN}', "must be a number"),
        ("scheduler", {}, "action must be one of"),
        ("scheduler", {"action": ["create"]}, "must be a string"),
        ("scheduler", {"action": "create", "type": "weekly"}, "type must be one of"),
        ("scheduler", {"action": "create", "type": "fixed"}, "fixed_time must be a time"),
        ("scheduler", {"action": "create", "type": "fixed", "fixed_time": "24:00"}, "fixed_time must be a time"),
        ("scheduler", {"action": "create", "type": "fixed", "fixed_time": "9:00", "timezone": "Mars"}, "IANA"),
        ("scheduler", {"action": "create", "type": "random", "random_start_time": "9:00"}, "random_end_time"),
        (
            "scheduler",
            {"action": "create", "type": "random", "random_start_time": "9:00", "random_end_time": "09:00"},
            "must differ",
        ),
        ("scheduler", {"action": "delete", "schedule_id": "x"}, "no schedule 'x'"),
        ("transition_state", {"target_state": "LIMBO"}, "must be one of: INTAKE, FEEDBACK"),
        ("transition_state", {"target_state": "FEEDBACK", "delay_minutes": -1}, "delay_minutes must be from 0"),
        ("transition_state", {"target_state": "FEEDBACK", "delay_minutes": 1e9}, "delay_minutes must be from 0"),
        ("transition_state", {"target_state": "FEEDBACK", "delay_minutes": True}, "must be a number"),
        ("transition_state", '{"target_state": "FEEDBACK", "delay_minutes": 1e999}', "must be a number"),
        ("generate_habit_prompt", {"delivery_mode": "pigeon"}, "must be one of"),
        ("generate_habit_prompt", {"delivery_mode": "immediate"}, "no prompt_anchor and no preferred_time"),
    ],
)
async def test_model_is_told_what_is_wrong(name: str, arguments: object, reason: str) -> None:
    """And nothing is changed but the history."""
    conversation = Conversation()
    result = await use(name, arguments, conversation)
    assert result["status"] == "error"
    assert reason in str(result["error"])
    assert set(conversation.data) == {"conversationHistory", "participantBackground"}
    assert (conversation.timers, conversation.schedules) == ({}, {})


@pytest.mark.parametrize(
    "answers",
    [
        (None,),
        ("",),
        ("  \n",),
        (wishes(("scheduler", {"action": "list"})), None),
        tuple(wishes(("scheduler", {"action": "list"})) for _ in range(ROUNDS)),
    ],
    ids=["no answer", "nothing", "blank", "no answer after a tool", "no end"],
)
async def test_nobody_is_left_without_an_answer(answers: tuple[Generated | str | None, ...]) -> None:
    """Whatever the model does: after ten rounds at the latest, a few words of ours."""
    model = ScriptedModel(*answers)
    conversation = Conversation(model)
    await_hello = await conversation.hear("hello")
    assert await_hello == [script.FALLBACK]
    assert len(model.asked) == len(answers)
    assert conversation.data["conversationHistory"][-1]["content"] == script.FALLBACK


async def test_model_that_takes_too_long_is_not_waited_for(autojump_clock: MockClock) -> None:
    """An event may hold up its conversation for two minutes in all."""

    class Slow(ScriptedModel):
        async def generate(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> Generated:
            await trio.sleep(40)
            return await super().generate(messages, tools)

    model = Slow(*(wishes(("save_user_profile", {"habit_domain": str(n)})) for n in range(ROUNDS)))
    conversation = Conversation(model)
    assert await conversation.hear("hello") == [script.FALLBACK]
    assert trio.current_time() == pytest.approx(ANSWER_SECONDS)
    assert conversation.profile["habit_domain"] == "1"  # what was done by then stays done


async def test_endless_answer_is_cut() -> None:
    """To what fits into a message."""
    conversation = Conversation(ScriptedModel("word " * 5000))
    [text] = await conversation.hear("hello")
    assert (len(text), text[-1]) == (4096, "…")


async def test_somebody_new_is_greeted_by_the_model() -> None:
    """It is told that they have not written yet; a model that is not there leaves them our greeting."""
    model = ScriptedModel("Welcome!", None)
    conversation = Conversation(model)
    assert said(await conversation.handle(Enrolled(flow_type="conversation"))) == ["Welcome!"]
    assert told(model)[-1] == ("system", NEW_HERE)
    assert said(await conversation.handle(FlowReset(flow_type="conversation"))) == [script.greeting("Ada")]
