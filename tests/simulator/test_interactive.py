"""Messages with buttons and lists: what Meta takes, how a phone shows them, what choosing tells the service."""

from __future__ import annotations

import json
from typing import Any

import pytest

from promptpipe.simulator.meta import DISPLAY_PHONE_NUMBER
from tests.simulator.simulated import ADA, Simulated, open_simulated
from tests.support.eventually import eventually


def buttons(*titles: str) -> dict[str, Any]:
    return {
        "type": "button",
        "body": {"text": "Did you stretch?"},
        "action": {
            "buttons": [{"type": "reply", "reply": {"id": f"id {n}", "title": t}} for n, t in enumerate(titles)]
        },
    }


def rows(*titles: str) -> dict[str, Any]:
    return {
        "type": "list",
        "body": {"text": "When?"},
        "action": {
            "button": "Pick a time",
            "sections": [{"title": "Times", "rows": [{"id": f"id {n}", "title": t} for n, t in enumerate(titles)]}],
        },
    }


def changed(message: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """Return *message* with the value at a dotted *path* replaced; None takes it away."""
    copy: dict[str, Any] = json.loads(json.dumps(message))
    place: Any = copy
    *way, last = [int(step) if step.isdecimal() else step for step in path.split(".")]
    for step in way:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return copy


YES_NO, TIMES = buttons("Yes", "No"), rows("At seven", "At eight")
FRAMED = YES_NO | {"header": {"type": "text", "text": "Evening"}, "footer": {"text": "One tap"}}


async def send(simulated: Simulated, interactive: object) -> Any:
    return await simulated.send(type="interactive", interactive=interactive)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (YES_NO, "Did you stretch?\n[Yes] [No]"),
        (FRAMED, "Evening\nDid you stretch?\nOne tap\n[Yes] [No]"),
        (TIMES, "When?\n[At seven] [At eight]"),
        (rows(*"abcdefghij"), "When?\n[a] [b] [c] [d] [e] [f] [g] [h] [i] [j]"),
    ],
)
async def test_message_with_choices_is_on_the_phone(message: dict[str, Any], text: str) -> None:
    """In Meta's shape, and as text for whoever shows only that; the log of requests has the text."""
    async with open_simulated() as simulated:
        answer = await send(simulated, message)
        assert answer.status_code == 200, answer.text
        [bubble] = await simulated.read()
        assert bubble["text"] == text
        shown = bubble["interactive"]
        assert {name: part for name, part in shown.items() if part is not None}.keys() == message.keys()
        assert shown["body"] == message["body"]
        assert [request.text for request in simulated.stand_in.world.requests] == [text]


@pytest.mark.parametrize(
    ("message", "code", "named"),
    [
        (None, 131008, "interactive"),
        ({}, 131008, "type"),
        (changed(YES_NO, "body", None), 131008, "body"),
        (changed(YES_NO, "action.buttons.0.reply.id", None), 131008, "buttons.0.reply.id"),
        (changed(TIMES, "action.button", None), 131008, "action.button"),
        (changed(YES_NO, "type", "carousel"), 131009, "carousel"),
        (changed(YES_NO, "body.text", ""), 131009, "body.text"),
        (changed(YES_NO, "body.text", "x" * 1025), 131009, "body.text"),
        (changed(FRAMED, "header.text", "x" * 61), 131009, "header.text"),
        (changed(FRAMED, "header.type", "image"), 131009, "header.type"),
        (changed(FRAMED, "footer.text", "x" * 61), 131009, "footer.text"),
        (buttons(), 131009, "buttons"),
        (buttons("a", "b", "c", "d"), 131009, "buttons"),
        (buttons("same", "same"), 131009, "titles must differ"),
        (buttons("x" * 21), 131009, "title"),
        (changed(YES_NO, "action.buttons.0.reply.id", "x" * 257), 131009, "id"),
        (changed(YES_NO, "action.buttons.0.reply.id", "id 1"), 131009, "ids must differ"),
        (changed(TIMES, "action.button", "x" * 21), 131009, "action.button"),
        (rows(), 131009, "rows"),
        (rows(*"abcdefghijk"), 131009, "10 rows"),
        (rows("x" * 25), 131009, "title"),
        (changed(TIMES, "action.sections.0.rows.0.description", "x" * 73), 131009, "description"),
        (changed(TIMES, "action.sections.0.rows.0.id", "x" * 201), 131009, "id"),
        (changed(TIMES, "action.sections.0.rows.0.id", "id 1"), 131009, "ids must differ"),
        (changed(TIMES, "action.sections", [{"rows": [{"id": n, "title": n}]} for n in "ab"]), 131009, "title"),
    ],
)
async def test_malformed_choices_are_refused_as_meta_does(message: object, code: int, named: str) -> None:
    """With Meta's code, and details that name the place; nothing reaches the phone."""
    async with open_simulated() as simulated:
        answer = await (simulated.send(type="interactive") if message is None else send(simulated, message))
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, code)
        assert named in error["error_data"]["details"]
        assert await simulated.read() == []


@pytest.mark.parametrize("kind", ["button_reply", "list_reply"])
async def test_choice_names_the_message_that_it_answers(kind: str) -> None:
    """As `context` of the webhook; on the phone, as `reply_to`."""
    async with open_simulated() as simulated:
        simulated.stand_in.faults.statuses = ()
        asked = (await send(simulated, YES_NO)).json()["messages"][0]["id"]
        utterance = {kind: {"id": "id 0", "title": "Yes"}, "reply_to": asked}
        answer = await simulated.client.post(f"/api/people/{ADA}/messages", json=utterance)
        assert answer.status_code == 201
        await eventually(lambda: len(simulated.receiver.bodies) == 1)
        [update] = simulated.receiver.updates
        message = json.loads(update.raw)
        assert message["context"] == {"from": DISPLAY_PHONE_NUMBER, "id": asked}
        assert message["interactive"] == {"type": kind, kind: utterance[kind]}
        assert [bubble["reply_to"] for bubble in await simulated.read()] == [None, asked]


async def test_person_may_answer_their_own_message_but_none_that_is_not_there() -> None:
    """The context names who wrote it; without a message to answer, nothing is said."""
    async with open_simulated() as simulated:
        path = f"/api/people/{ADA}/messages"
        own = (await simulated.client.post(path, json={"text": "hi"})).json()["id"]
        await simulated.client.post(path, json={"text": "I mean hello", "reply_to": own})
        refused = await simulated.client.post(path, json={"text": "what?", "reply_to": "wamid.unheard"})
        assert (refused.status_code, refused.json()) == (400, {"error": "no message 'wamid.unheard' is on this phone"})
        await eventually(lambda: len(simulated.receiver.bodies) == 2)
        contexts = [json.loads(update.raw).get("context") for update in simulated.receiver.updates]
        assert contexts == [None, {"from": ADA.removeprefix("+"), "id": own}]
        assert len(await simulated.read()) == 2
