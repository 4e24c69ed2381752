"""SendPrompt: a prompt now, of every kind, in its turn in the participant's mailbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from grpclib.const import Status

from promptpipe.client import v1
from promptpipe.flows.conversation import script
from promptpipe.model.ids import ParticipantId
from promptpipe.model.messages import Text
from promptpipe.rpc.convert import struct
from tests.support.admin import ADA, Admin, open_admin, refused, violation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptpipe.flows.flow import FlowContext
    from promptpipe.model.messages import Content
    from tests.support.service import Home

STRETCH = v1.Prompt(static=v1.PromptStatic(body="Time to stretch"))
MOOD = v1.Prompt(
    branch=v1.PromptBranch(
        body="How are you?",
        options=[v1.PromptOption(label="Well", body="Good!"), v1.PromptOption(label="Badly", body="Oh.")],
    )
)


class Weather:
    """A generator of prompts."""

    name = "weather"

    async def generate(self, parameters: Mapping[str, object], context: FlowContext) -> Content:
        return Text(f"It is {parameters['weather']}, {context.participant.name}")


async def send(admin: Admin, prompt: v1.Prompt, **values: Any) -> v1.SendPromptResponse:
    wanted: dict[str, Any] = {"to": ADA, "prompt": prompt, **values}
    return await admin.prompts.send_prompt(v1.SendPromptRequest(**wanted))


async def test_static_prompt_is_in_the_outbox_when_it_is_answered(home: Home) -> None:
    """And the flow waits for what is said to it."""
    async with open_admin(home, handles=True) as admin:
        ada = await admin.enroll()
        answer = await send(admin, STRETCH)
        assert answer.message is not None
        assert (answer.created, answer.message.text, answer.message.participant_id) == (True, "Time to stretch", ada.id)
        assert answer.message.status is v1.OutboxMessageStatus.QUEUED
        state = await admin.components.store.participants.flow_state(ParticipantId(ada.id), "conversation")
        assert isinstance(state.data["dailyPromptPending"], dict)
        assert state.data["dailyPromptPending"]["messageId"] == answer.message.id


async def test_dedupe_key_sends_once(home: Home) -> None:
    """Whoever asks again is shown the message that there is."""
    async with open_admin(home, handles=True) as admin:
        await admin.enroll()
        first, again = await send(admin, STRETCH, dedupe_key="k"), await send(admin, STRETCH, dedupe_key="k")
        assert (first.created, again.created, again.message) == (True, False, first.message)


async def test_branch_prompt_has_its_choices(home: Home) -> None:
    """A response handler waits for one of them."""
    async with open_admin(home, handles=True) as admin:
        ada = await admin.enroll()
        message = (await send(admin, MOOD)).message
        assert message is not None
        assert message.text == "How are you?\n1. Well\n2. Badly"
        assert home.rows("SELECT handler_type FROM registered_hooks WHERE participant_id = ? ORDER BY 1", ada.id) == [
            ("branch",),
            ("conversation",),
        ]


async def test_conversation_prompt_is_what_the_flow_has_to_say(home: Home) -> None:
    """Of somebody of whom nothing is known yet it asks nothing special."""
    async with open_admin(home, handles=True) as admin:
        await admin.enroll()
        message = (await send(admin, v1.Prompt(conversation=v1.PromptConversation()))).message
        assert message is not None
        assert (message.text or "").startswith(script.habit_prompt({}))


async def test_custom_prompt_is_made_by_its_generator(home: Home) -> None:
    """With what it is given, for whom it is."""
    async with open_admin(home, handles=True, generators=[Weather()]) as admin:
        await admin.enroll(name="Ada")
        custom = v1.PromptCustom(generator="weather", parameters=struct({"weather": "sunny"}))
        message = (await send(admin, v1.Prompt(custom=custom))).message
        assert message is not None
        assert message.text == "It is sunny, Ada"
        unknown = v1.Prompt(custom=v1.PromptCustom(generator="tides"))
        error = await refused(send(admin, unknown), Status.INVALID_ARGUMENT)
        assert violation(error) == ("prompt.custom.generator", "must be one of: weather")


async def test_generated_prompt_needs_a_model(home: Home) -> None:
    """Which setting is missing is said."""
    async with open_admin(home, handles=True) as admin:
        await admin.enroll()
        prompt = v1.Prompt(genai=v1.PromptGenAi(user_prompt="Write something kind."))
        error = await refused(send(admin, prompt), Status.FAILED_PRECONDITION)
        assert error.message == "no language model is configured: set PROMPTPIPE_GENAI__API_KEY"


@pytest.mark.parametrize("status", [v1.ParticipantStatus.PAUSED, v1.ParticipantStatus.WITHDRAWN])
async def test_who_is_not_active_is_not_prompted(home: Home, status: v1.ParticipantStatus) -> None:
    """The reason says so, and nothing is in the outbox."""
    async with open_admin(home, handles=True) as admin:
        ada = await admin.enroll()
        await admin.participants.update_participant(v1.UpdateParticipantRequest(participant_id=ada.id, status=status))
        error = await refused(send(admin, STRETCH), Status.FAILED_PRECONDITION)
        assert error.message == f"the participant is {(status.name or '').lower()}"
        texts = [item.text for item in (await admin.outbox.list_messages(v1.ListMessagesRequest())).messages]
        assert "Time to stretch" not in texts
