"""What a hand has made nonsense of: that participant's conversation waits and says why, and nobody else's does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from promptpipe.flows.conversation import ConversationFlow, ConversationSettings, script
from promptpipe.model.listing import PageRequest
from tests.support.people import ADA, BOB, batch, inbound
from tests.support.recovering import CONVERSATION
from tests.support.runtime import open_runtime, running

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from tests.support.runtime import Runtime

FIVE_MINUTES = 300.0


async def say(runtime: Runtime, text: str, sender: str = ADA) -> None:
    message = inbound(text, sender, provider_time=runtime.clock.now())
    await runtime.store.inbound.ingest(batch(message), CONVERSATION)
    await trio.sleep(1.0)


def edit(runtime: Runtime, values: str, sender: str = ADA) -> None:
    """Edit somebody's state by hand."""
    [(person,)] = runtime.rows("SELECT participant_id FROM participant_addresses WHERE address = ?", sender)
    runtime.change(f"UPDATE flow_states SET {values} WHERE participant_id = ?", person)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ("state_data = '{torn'", "the state cannot be read: Expecting property name"),
        ("state_data = '[]'", "the state cannot be read: expected a JSON object, got list"),
        (
            """state_data = '{"conversationState": "MARS"}'""",
            "conversationState is none that there is",
        ),
        (
            """state_data = '{"conversationHistory": 7}'""",
            "conversationHistory is not a list of turns",
        ),
        ("""state_data = '{"userProfile": [1]}'""", "userProfile is not an object"),
        ("flow_type = 'abandoned'", "the participant is not in the flow conversation"),
    ],
)
async def test_event_for_a_broken_state_is_set_aside_with_the_reason(
    tmp_path: Path, autojump_clock: MockClock, values: str, reason: str
) -> None:
    """The others are served all the while; once the state is whole again, a retried event is handled."""
    flow = ConversationFlow(ConversationSettings())
    async with open_runtime(tmp_path, flows=[flow]) as runtime, running(runtime):
        await say(runtime, "hi")
        await say(runtime, "hi", BOB)
        [(whole,)] = runtime.rows("SELECT state_data FROM flow_states LIMIT 1")
        edit(runtime, values)
        runtime.channel.sent.clear()
        await say(runtime, "stretch")
        await say(runtime, "read", BOB)
        assert runtime.channel.texts == [script.INTAKE["motivational_frame"]]
        await trio.sleep(FIVE_MINUTES)
        [aside] = (await runtime.store.aside.list(None, PageRequest(size=10))).items
        assert reason in aside.last_error
        assert "stretch" not in aside.last_error
        runtime.change("UPDATE flow_states SET flow_type = 'conversation', state_data = ?", whole)
        runtime.channel.sent.clear()
        await runtime.store.aside.retry(aside.id)
        await trio.sleep(1.0)
        assert runtime.channel.texts == [script.INTAKE["motivational_frame"]]


async def test_zone_that_does_not_exist_is_taken_for_none(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The person is prompted by the clock of who has none, and nothing stands still."""
    flow = ConversationFlow(ConversationSettings())
    async with open_runtime(tmp_path, flows=[flow]) as runtime, running(runtime):
        await say(runtime, "hi")
        runtime.change("UPDATE conversation_participants SET timezone = 'Mars/Olympus'")
        for text in ("stretch", "my back", "7:30", "after coffee"):
            await say(runtime, text)
        assert runtime.channel.texts[-1].startswith("after coffee")
        assert runtime.rows("SELECT zone, hour, minute FROM schedules") == [("America/Toronto", 7, 20)]
