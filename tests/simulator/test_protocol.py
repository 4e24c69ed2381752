"""The simulator's side of Meta's protocol, and the API by which a tester is a person."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
import trio

from promptpipe.model.messages import MessageStatus
from tests.simulator.simulated import ADA, SEND, TOKEN, Simulated, open_simulated
from tests.support.eventually import eventually

# ---------------------------------------------------------------- Meta's endpoint


async def test_accepted_message_is_on_the_phone_and_lives_through_its_statuses() -> None:
    """An id in the answer; sent, delivered and read by webhook, with our callback data."""
    async with open_simulated() as simulated:
        answer = (await simulated.send()).json()
        wamid = answer["messages"][0]["id"]
        assert wamid.startswith("wamid.")
        assert answer["contacts"] == [{"input": ADA, "wa_id": "16505551234"}]
        await eventually(lambda: len(simulated.receiver.updates) == 3)
        statuses = {update.status: update.reference for update in simulated.receiver.updates}  # type: ignore[union-attr]
        expected = (MessageStatus.SENT, MessageStatus.DELIVERED, MessageStatus.READ)
        assert statuses == dict.fromkeys(expected, ("m", 1))
        [bubble] = await simulated.read()
        assert (bubble["id"], bubble["text"], bubble["mine"], bubble["status"]) == (wamid, "hello", False, "read")


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"messaging_product": None}, 400, 100),
        ({"to": None}, 400, 100),
        ({"to": "nobody"}, 400, 131026),
        ({"text": {}}, 400, 131008),
        ({"text": {"body": "x" * 4097}}, 400, 100),
        ({"type": "image"}, 400, 131051),
        ({"biz_opaque_callback_data": "x" * 513}, 400, 100),
    ],
)
async def test_bad_request_is_refused_as_meta_does(change: dict[str, object], status: int, code: int) -> None:
    """An error object with a code; nothing reaches a phone."""
    async with open_simulated() as simulated:
        answer = await simulated.send(**change)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["type"]) == (status, code, "OAuthException")
        assert error["fbtrace_id"]
        assert await simulated.read() == []


async def test_token_and_number_are_checked() -> None:
    """401 with code 190, and an unknown object."""
    async with open_simulated() as simulated:
        for headers in ({}, {"Authorization": "Bearer guess"}):
            answer = await simulated.client.post(SEND, json={}, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, 190)
        answer = await simulated.client.post("/v24.0/1/messages", json={}, headers=TOKEN)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, 100)
        answer = await simulated.client.post(SEND, content=b"nonsense", headers=TOKEN)
        assert answer.status_code == 400


# ---------------------------------------------------------------- people


@pytest.mark.parametrize(
    ("utterance", "type_", "text", "choice"),
    [
        ({"text": "Grüße 👋"}, "text", "Grüße 👋", None),
        ({"button_reply": {"id": "b1", "title": "Yes"}}, "interactive", "Yes", "b1"),
        ({"list_reply": {"id": "l1", "title": "Row", "description": "d"}}, "interactive", "Row", "l1"),
        ({"message": {"type": "image", "image": {"caption": "Taj"}}}, "image", "[image] Taj", None),
    ],
)
async def test_what_a_person_says_comes_as_metas_webhook(
    utterance: dict[str, Any], type_: str, text: str, choice: str | None
) -> None:
    """Signed, escaped, with their name and number."""
    async with open_simulated() as simulated:
        await simulated.client.post("/api/people", json={"number": "+1 650-555-1234", "name": "Ada"})
        answer = await simulated.client.post(f"/api/people/{ADA}/messages", json=utterance)
        assert answer.status_code == 201
        await eventually(lambda: len(simulated.receiver.updates) == 1)
        [update] = simulated.receiver.updates
        assert (update.type, update.text, update.choice_id, update.sender_name) == (type_, text, choice, "Ada")  # type: ignore[union-attr]
        assert update.provider_id == answer.json()["id"]  # type: ignore[union-attr]
        assert simulated.receiver.bodies[0].isascii()


async def test_what_one_person_says_arrives_in_order_and_until_it_is_taken() -> None:
    """Refused, it is repeated, and what was said after it waits."""
    async with open_simulated() as simulated:
        simulated.receiver.answers = [503, 500, 200]
        for number in range(3):
            await simulated.client.post(f"/api/people/{ADA}/messages", json={"text": str(number)})
        await eventually(lambda: len(simulated.receiver.bodies) == 5)
        assert [update.text for update in simulated.receiver.updates] == ["0", "0", "0", "1", "2"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/people", {"number": "x"}),
        ("/api/people", {}),
        ("/api/people", {"number": ADA, "surprise": 1}),
        (f"/api/people/{ADA}/messages", {}),
        (f"/api/people/{ADA}/messages", {"text": ""}),
        (f"/api/people/{ADA}/messages", {"message": {"no": "type"}}),
        ("/api/people/12/messages", {"text": "hi"}),
    ],
)
async def test_nonsense_is_refused_with_a_reason(path: str, body: dict[str, object]) -> None:
    """A tester learns what was wrong."""
    async with open_simulated() as simulated:
        answer = await simulated.client.post(path, json=body)
        assert answer.status_code == 400
        assert answer.json()["error"]


async def test_reading_waits_for_news() -> None:
    """A reader that has seen everything gets the next thing when it happens, and only that."""
    async with open_simulated() as simulated:
        simulated.stand_in.faults.statuses = ()
        await simulated.send()
        seen = (await simulated.client.get(f"/api/people/{ADA}/messages")).json()["changes"]
        news: list[dict[str, Any]] = []

        async def wait() -> None:
            answer = await simulated.client.get(f"/api/people/{ADA}/messages", params={"since": seen, "wait": 10})
            news.extend(answer.json()["messages"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await simulated.send(text={"body": "news"})
        assert [bubble["text"] for bubble in news] == ["news"]


# ---------------------------------------------------------------- knobs


async def turn(simulated: Simulated, **knobs: object) -> None:
    answer = await simulated.client.put("/api/faults", json=knobs)
    assert answer.status_code == 200, answer.text


async def test_errors_come_as_often_as_told_and_in_metas_words() -> None:
    """Two refusals with a code, then success."""
    async with open_simulated() as simulated:
        await turn(simulated, error_code=131056, errors={"share": 1, "times": 2})
        answers = [await simulated.send() for _ in range(3)]
        assert [answer.status_code for answer in answers] == [400, 400, 200]
        assert answers[0].json()["error"]["code"] == 131056
        outcomes = [item["outcome"] for item in (await simulated.client.get("/api/requests")).json()]
        assert outcomes == ["error 131056", "error 131056", "accepted"]


async def test_lost_answer_breaks_the_connection_after_the_message_was_taken() -> None:
    """The phone has it; the sender cannot know."""
    async with open_simulated() as simulated:
        await turn(simulated, lost_answers={"share": 1, "times": 1})
        with pytest.raises(httpx2.RemoteProtocolError):
            await simulated.send()
        assert [bubble["text"] for bubble in await simulated.read()] == ["hello"]
        assert (await simulated.send()).status_code == 200


async def test_blank_error_says_nothing() -> None:
    """A bare 502, though the message was taken."""
    async with open_simulated() as simulated:
        await turn(simulated, blank_errors={"share": 1})
        answer = await simulated.send()
        assert (answer.status_code, answer.content) == (502, b"")
        assert len(await simulated.read()) == 1


async def test_duplicates_and_lost_statuses() -> None:
    """Every webhook twice; or no status at all."""
    async with open_simulated() as simulated:
        await turn(simulated, duplicates={"share": 1}, statuses=["sent"], status_delay=0)
        await simulated.send()
        await eventually(lambda: len(simulated.receiver.bodies) == 2)
        assert simulated.receiver.bodies[0] == simulated.receiver.bodies[1]
        await turn(simulated, lost_statuses={"share": 1}, statuses=["sent", "failed"], status_delay=0)
        await simulated.send()

        async def failed_on_the_phone() -> bool:
            return [bubble["status"] for bubble in await simulated.read()] == ["sent", "failed"]

        await eventually(failed_on_the_phone)
        assert len(simulated.receiver.bodies) == 2


async def test_disorder_lets_statuses_overtake_each_other() -> None:
    """Of twenty messages, some status comes before its predecessor."""
    async with open_simulated() as simulated:
        await turn(simulated, disorder={"share": 1}, status_delay=0)
        for _ in range(20):
            await simulated.send()
        await eventually(lambda: len(simulated.receiver.bodies) == 60)
        order = [update.status.rank for update in simulated.receiver.updates]  # type: ignore[union-attr]
        assert order != sorted(order)


async def test_unknown_knob_is_refused() -> None:
    """A typo turns nothing, and breaks nothing later."""
    async with open_simulated() as simulated:
        for body in ({"lateny": 1}, {"latency": -1}, {"errors": {"share": 2}}, {"statuses": ["seen"]}):
            answer = await simulated.client.put("/api/faults", json=body)
            assert answer.status_code == 400
        assert (await simulated.client.get("/api/faults")).json()["latency"] == 0.0
