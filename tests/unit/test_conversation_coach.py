"""The conversation with a language model: what it is told, what it may have done, and what becomes of nonsense."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import trio

from promptpipe.flows.conversation import script
from promptpipe.flows.conversation.coach import ANSWER_SECONDS, NEW_HERE, ROUNDS
from promptpipe.flows.tone import Tone, UpdateSource, guide
from promptpipe.model.chat import Generated, ToolCall
from promptpipe.model.events import Enrolled, FlowReset
from tests.support.conversing import NOW, PERSON, TEXTS, Conversation, choices_of, said
from tests.support.prompting import ScriptedModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio.testing import MockClock

    from promptpipe.model.chat import ChatMessage, Tool

PROFILE = {"prompt_anchor": "after coffee", "preferred_time": "morning", "habit_domain": "stretch"}


def wishes(*calls: tuple[str, object], text: str = "") -> Generated:
    """Return what a model answers that wants tools used; arguments that are no text are written as JSON."""
    return Generated(
        text=text,
        tool_calls=tuple(
            ToolCall(id=f"c{n}", name=name, arguments=value if isinstance(value, str) else json.dumps(value))
            for n, (name, value) in enumerate(calls)
        ),
    )


def told(model: ScriptedModel, number: int = -1) -> list[tuple[str, str]]:
    """Return what a model was told, one of the times it was asked."""
    return [(message.role.value, message.content) for message in model.asked[number]]


async def use(name: str, arguments: object, conversation: Conversation | None = None) -> dict[str, object]:
    """Have a model use one tool, and return what it is told of that."""
    model = ScriptedModel(wishes((name, arguments)), "All right.")
    conversation = conversation or Conversation()
    conversation.flow = Conversation(model).flow
    assert await conversation.hear("hello") == ["All right."]
    result: dict[str, object] = json.loads(model.asked[1][-1].content)
    return result


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


# ---------------------------------------------------------------- the profile


async def test_profile_keeps_what_is_new() -> None:
    """A field changes when its value is there and different; the old name of one is understood."""
    conversation = Conversation()
    conversation.edit(userProfile={"intensity": "high", "habit_domain": "stretch", "last_tweak": "earlier"})
    arguments = {
        "habit_domain": " ",
        "last_tweak": " later ",
        "last_blocker": "noise",
        "preferred_time": 7,
        "success_count": "99",
        "favourite_color": "blue",
    }
    result = await use("save_user_profile", arguments, conversation)
    assert result == {"status": "success", "missing": ["motivational_frame", "preferred_time", "prompt_anchor"]}
    assert conversation.profile == {
        "intensity": "high",
        "habit_domain": "stretch",
        "last_tweak": "later",
        "last_barrier": "noise",
    }
    assert (await use("save_user_profile", arguments, conversation))["status"] == "noop"


async def test_new_profile_has_a_normal_intensity() -> None:
    """Long values are cut, what no database can store is replaced."""
    conversation = Conversation()
    await use("save_user_profile", {"habit_domain": "a\0b", "additional_info": "x" * 5000}, conversation)
    assert (conversation.profile["intensity"], conversation.profile["habit_domain"]) == (
        "normal",
        "a\N{REPLACEMENT CHARACTER}b",
    )
    assert len(conversation.profile["additional_info"]) == 1000


async def test_tone_is_learned_by_the_way() -> None:
    """Explicitly at once, implicitly a little; as the tone's own rules have it."""
    conversation = Conversation()
    explicit = {"tone_tags": [" Formal", "snarky"], "tone_update_source": "explicit", "tone_confidence": 0.9}
    assert (await use("save_user_profile", explicit, conversation))["status"] == "success"
    tone = conversation.profile["tone"]
    assert (tone["tags"], tone["scores"], tone["version"], tone["update_source"]) == (
        ["formal"],
        {"formal": 0.9},
        1,
        "explicit",
    )
    assert tone["last_updated_at"] == NOW.isoformat()
    assert (await use("save_user_profile", {"tone_tags": ["casual"]}, conversation))["status"] == "noop"
    await conversation.pass_time(minutes=3)
    assert (await use("save_user_profile", {"tone_tags": ["casual"]}, conversation))["status"] == "success"
    assert conversation.profile["tone"]["scores"] == pytest.approx({"formal": 0.765, "casual": 0.15})


# ---------------------------------------------------------------- schedules


@pytest.mark.parametrize(
    ("arguments", "own_zone", "rule"),
    [
        ({"type": "fixed", "fixed_time": "09:00"}, None, (8, 50, "America/Toronto", 0)),
        ({"type": "fixed", "fixed_time": "00:05"}, None, (23, 55, "America/Toronto", 0)),
        ({"type": "fixed", "fixed_time": "9:00"}, "Europe/Berlin", (8, 50, "Europe/Berlin", 0)),
        ({"type": "fixed", "fixed_time": "9:00", "timezone": "Asia/Tokyo"}, "Europe/Berlin", (8, 50, "Asia/Tokyo", 0)),
        ({"type": "fixed", "fixed_time": "9:00"}, "Mars/Olympus", (8, 50, "America/Toronto", 0)),
        ({"type": "random", "random_start_time": "9:00", "random_end_time": "11:30"}, None, (8, 50, "UTC", 150)),
        ({"type": "random", "random_start_time": "22:00", "random_end_time": "01:00"}, None, (21, 50, "UTC", 180)),
        (
            {"type": "RANDOM", "random_start_time": "9:00", "random_end_time": "9:01"},
            "Europe/Berlin",
            (8, 50, "Europe/Berlin", 1),
        ),
    ],
)
async def test_schedule_is_made_as_asked_for(
    arguments: dict[str, str], own_zone: str | None, rule: tuple[int, int, str, int]
) -> None:
    """Ten minutes before the time, in the zone that was named, the participant's own, or the default of its type."""
    conversation = Conversation()
    conversation.participant = replace(conversation.participant, timezone=own_zone)
    result = await use("scheduler", {"action": "create", **arguments}, conversation)
    [new] = conversation.schedules.values()
    hour, minute, zone, spread = rule
    assert (new.recurrence.hour, new.recurrence.minute, new.recurrence.zone) == (hour, minute, zone)
    assert (new.spread, new.participant_id, new.kind) == (timedelta(minutes=spread), PERSON, "scheduled_prompt")
    [entry] = conversation.data["scheduleRegistry"]
    assert result == {"status": "success", "schedule": entry}
    assert (entry["id"], entry["createdAt"], entry["timezone"]) == (new.id, NOW.isoformat(), zone)


async def test_schedules_are_listed_and_deleted() -> None:
    """By their ids; one that is made and deleted in one go never was."""
    conversation = Conversation()
    for time in ("9:00", "18:00"):
        await use("scheduler", {"action": "create", "type": "fixed", "fixed_time": time}, conversation)
    listed = (await use("scheduler", {"action": "list"}, conversation))["schedules"]
    assert listed == conversation.data["scheduleRegistry"]
    first, second = [entry["id"] for entry in conversation.data["scheduleRegistry"]]
    await use("scheduler", {"action": "delete", "schedule_id": first}, conversation)
    assert (list(conversation.schedules), [entry["id"] for entry in conversation.data["scheduleRegistry"]]) == (
        [second],
        [second],
    )
    await use("scheduler", {"action": "delete", "schedule_id": second}, conversation)
    assert "scheduleRegistry" not in conversation.data


async def test_nobody_is_prompted_without_end() -> None:
    """Ten times a day is enough, whatever a model wants."""
    create = ("scheduler", {"action": "create", "type": "fixed", "fixed_time": "9:00"})
    model = ScriptedModel(wishes(*[create] * 12), "All right.")
    conversation = Conversation(model)
    await conversation.hear("remind me a lot")
    results = [json.loads(message.content)["status"] for message in model.asked[1][-12:]]
    assert results == ["success"] * 10 + ["error"] * 2
    assert len(conversation.schedules) == 10


# ---------------------------------------------------------------- transitions


async def test_transition_takes_place_at_once() -> None:
    """From the next message on the other module answers; enforced feedback is not to come."""
    conversation = Conversation()
    await conversation.prompt()
    assert await use("transition_state", {"target_state": "feedback"}, conversation) == {
        "status": "success",
        "state": "FEEDBACK",
    }
    assert conversation.data["conversationState"] == "FEEDBACK"
    assert "auto_feedback_enforcement" not in conversation.running()
    assert (await use("transition_state", {"target_state": "FEEDBACK"}, conversation))["status"] == "noop"


async def test_transition_takes_place_later() -> None:
    """By a timer; a second one takes the place of the first, and one at once of both."""
    conversation = Conversation()
    await conversation.prompt()
    for minutes in (30, "45.5"):
        await use("transition_state", {"target_state": "FEEDBACK", "delay_minutes": minutes}, conversation)
    assert conversation.running()["state_transition"] == timedelta(minutes=45.5)
    assert f"state_transition:{PERSON}" in conversation.timers
    assert "auto_feedback_enforcement" not in conversation.running()
    assert "conversationState" not in conversation.data
    await use("transition_state", {"target_state": "INTAKE"}, conversation)
    assert "state_transition" not in conversation.running()
    await use("transition_state", {"target_state": "FEEDBACK", "delay_minutes": 5}, conversation)
    await conversation.fire("state_transition")
    assert conversation.data["conversationState"] == "FEEDBACK"


# ---------------------------------------------------------------- prompts


async def test_prompt_is_written_and_sent_after_the_answer() -> None:
    """With its poll, and waited for like any other; the model is told what it was."""
    arguments = {"delivery_mode": "immediate", "personalization_notes": "short"}
    model = ScriptedModel(wishes(("generate_habit_prompt", arguments)), "Stretch, Ada!", "Here it comes.")
    conversation = Conversation(model)
    conversation.edit(userProfile=PROFILE)
    assert await conversation.hear("prompt me") == ["Here it comes.", "Stretch, Ada!"]
    [system, context, (role, wish)] = told(model, 1)
    assert (system, context[0], role) == (("system", TEXTS.habit_prompt), "system", "user")
    assert wish.endswith("Mind this: short")
    assert json.loads(model.asked[2][-1].content) == {"status": "success", "prompt": "Stretch, Ada!", "sent": True}
    assert conversation.data["lastHabitPrompt"] == "Stretch, Ada!"
    assert conversation.pending["sentAt"] is None


async def test_prompt_is_written_for_later() -> None:
    """Nothing is sent now."""
    model = ScriptedModel(
        wishes(("generate_habit_prompt", {"delivery_mode": "scheduled"})), "Stretch, Ada!", "Like this: stretch."
    )
    conversation = Conversation(model)
    conversation.edit(userProfile=PROFILE)
    assert await conversation.hear("what will they be like?") == ["Like this: stretch."]
    assert conversation.data["lastHabitPrompt"] == "Stretch, Ada!"
    assert "dailyPromptPending" not in conversation.data


async def test_prompt_that_cannot_be_written_is_the_models_to_explain() -> None:
    """It gets the error, as of any tool."""
    model = ScriptedModel(wishes(("generate_habit_prompt", {"delivery_mode": "immediate"})), None, "Not now.")
    conversation = Conversation(model)
    conversation.edit(userProfile=PROFILE)
    assert await conversation.hear("prompt me") == ["Not now."]
    assert "the model is not there" in model.asked[2][-1].content


@pytest.mark.parametrize(
    ("answer", "expected"), [("Up you get!", "Up you get!"), (None, "after coffee"), ("", "after")]
)
async def test_scheduled_prompt_is_written_when_it_is_due(answer: str | None, expected: str) -> None:
    """By the model; by the script when that is not there, for the prompt is due."""
    conversation = Conversation(ScriptedModel(answer))
    conversation.edit(userProfile=PROFILE)
    prompt, poll = await conversation.order()
    assert prompt.startswith(expected)
    assert poll == script.INTENSITY_QUESTION


async def test_long_prompt_keeps_its_buttons() -> None:
    """It is cut to what WhatsApp takes with buttons."""
    conversation = Conversation(ScriptedModel("word " * 1000))
    assert len((await conversation.order())[0]) == 1000


async def test_model_hears_of_taps_as_of_words() -> None:
    """What they mean is noted before."""
    model = ScriptedModel("Prompt!", "Great.")
    conversation = Conversation(model)
    conversation.edit(userProfile=PROFILE)
    message_id = await conversation.order_and_send()
    assert await conversation.tap("done", message_id) == ["Great."]
    assert told(model)[-1] == ("user", "Done")
    assert "- prompts sent: 1, followed: 1" in told(model)[1][1]
    assert choices_of(await conversation.handle(Enrolled(flow_type="conversation"))) == []
