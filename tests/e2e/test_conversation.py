"""A whole conversation with the product, in fair weather and foul."""

from __future__ import annotations

import itertools
import json
from functools import partial
from typing import TYPE_CHECKING

import httpx2
import pytest
import trio

from promptpipe.simulator.faults import Fault, Faults
from tests.faults.spawner import start_forked
from tests.faults.support import NOTHING_LEFT, left_over
from tests.support.eventually import eventually
from tests.support.people import text_webhook
from tests.support.script import TRANSCRIPT, converse
from tests.support.service import open_service

if TYPE_CHECKING:
    from tests.support.service import Home

pytestmark = pytest.mark.slow

ALWAYS, OFTEN = 1.0, 0.4


async def test_conversation_is_had_once_each_in_order(home: Home) -> None:
    """Greeting, intake, prompt, reminder, success: as the script has it, every message sent once."""
    async with open_service(home, DAILY_PROMPT_REMINDER_DELAY="0.5") as (service, stand_in):
        phone = stand_in.world.phone("+16505551234", "Ada")
        service.start()
        await converse(stand_in, phone)
        assert phone.transcript() == TRANSCRIPT
        await eventually(lambda: left_over(service) == dict.fromkeys(NOTHING_LEFT, 0))
        await eventually(lambda: service.rows("SELECT DISTINCT status FROM outbox_messages") == [("read",)])
        assert await service.stop() == 0


FOUL_WEATHER = {
    "lost answers": Faults(lost_answers=Fault(share=OFTEN)),
    "bare 502s": Faults(blank_errors=Fault(share=OFTEN)),
    "duplicates and disorder": Faults(duplicates=Fault(share=OFTEN), disorder=Fault(share=ALWAYS)),
    "throttling of the number": Faults(errors=Fault(share=ALWAYS, times=3), error_code=130429),
    "refusals that pass": Faults(errors=Fault(share=ALWAYS, times=2), error_code=131000),
    "everything at once": Faults(
        latency=0.02,
        lost_answers=Fault(share=OFTEN),
        duplicates=Fault(share=OFTEN),
        disorder=Fault(share=OFTEN),
        errors=Fault(share=OFTEN, times=2),
        error_code=1,
    ),
}


@pytest.mark.parametrize("weather", FOUL_WEATHER)
async def test_weather_changes_nothing_that_a_participant_could_notice(home: Home, weather: str) -> None:
    """Answers get lost, webhooks come twice and in any order, Meta refuses for a while: the phone shows the same."""
    settings = {"DAILY_PROMPT_REMINDER_DELAY": "1", "IN_DOUBT_WAIT": "60"}
    async with open_service(home, **settings) as (service, stand_in):
        stand_in.faults = FOUL_WEATHER[weather].model_copy(deep=True)
        phone = stand_in.world.phone("+16505551234", "Ada")
        service.start()
        await converse(stand_in, phone, within=50.0)
        assert phone.transcript() == TRANSCRIPT
        accepted = [item.reference for item in stand_in.world.requests if item.outcome == "accepted"]
        assert len(accepted) == sum(who == "service" for who, _ in TRANSCRIPT)


async def test_same_webhook_from_ten_connections_is_one_event(home: Home) -> None:
    """Fifty posts of it, all acknowledged, one answer."""
    async with open_service(home) as (service, stand_in):
        start_forked(service, "--echo", "0")
        await service.wait_ready()
        statuses: list[int] = []

        async def post_five() -> None:
            async with httpx2.AsyncClient() as client:
                for _ in range(5):
                    status = await service.post(text_webhook(), client=client)
                    statuses.append(status)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(post_five)
        assert statuses == [200] * 50
        await eventually(lambda: left_over(service) == dict.fromkeys(NOTHING_LEFT, 0))
        assert service.rows("SELECT count(*) FROM responses") == [(1,)]
        assert stand_in.world.phone("+16505551234").transcript() == [("service", "echo: hello")]


async def test_fifty_messages_at_once_are_answered_in_order_one_at_a_time(home: Home) -> None:
    """In one order, from the flow to the phone, whichever connection brought them."""
    async with open_service(home) as (service, stand_in):
        start_forked(service, "--echo", "0")
        await service.wait_ready()
        async with httpx2.AsyncClient() as client, trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(partial(service.post, text_webhook(str(number), f"wamid.{number}"), client=client))
        phone = stand_in.world.phone("+16505551234")
        await eventually(lambda: len(phone.bubbles) == 50)
        [(text,)] = service.rows("SELECT state_data ->> 'heard' FROM flow_states")
        heard = json.loads(text)
        assert sorted(heard) == sorted(f"echo: {number}" for number in range(50))
        assert [text for _, text in phone.transcript()] == heard
        processed = {f"echo: {text}": at for text, at in service.rows("SELECT text, processed_at FROM responses")}
        assert sorted(heard, key=lambda text: processed[text]) == heard  # those of one commit stay in their order
        await eventually(lambda: left_over(service) == dict.fromkeys(NOTHING_LEFT, 0))
        sent = service.rows("SELECT started_at, ended_at FROM outbox_attempts ORDER BY started_at")
        assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(sent))
