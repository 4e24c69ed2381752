"""What a language model may have done in a conversation, by each of its tools."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from promptpipe.flows.conversation import script
from promptpipe.model.events import Enrolled
from tests.support.coaching import told, use, wishes
from tests.support.conversing import NOW, PERSON, TEXTS, Conversation, choices_of
from tests.support.prompting import ScriptedModel

PROFILE = {"prompt_anchor": "after coffee", "preferred_time": "morning", "habit_domain": "stretch"}


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
