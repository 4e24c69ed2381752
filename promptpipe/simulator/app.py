"""The simulator's routes: Meta's, and those by which a tester is a person and turns the knobs."""

from __future__ import annotations

import hmac
import json
import math
from http import HTTPStatus
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from quart import Response, request

from promptpipe.config import SIMULATOR_ACCESS_TOKEN, SIMULATOR_PHONE_NUMBER_ID
from promptpipe.simulator.browser import add_page
from promptpipe.simulator.faults import Faults
from promptpipe.simulator.gate import add_gate
from promptpipe.simulator.meta import RefusedError
from promptpipe.simulator.meta_stand_in import BlankAnswerError, LostAnswerError
from promptpipe.web.app import bare_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from quart_trio import QuartTrio

    from promptpipe.simulator.meta_stand_in import MetaStandIn
    from promptpipe.simulator.world import Phone

LONGEST_WAIT = 20.0
"""Seconds for which reading a phone may wait for something new."""


class NewPerson(BaseModel):
    """Someone to put a phone in the hands of."""

    model_config = ConfigDict(extra="forbid")
    number: str
    name: str | None = None


class Choice(BaseModel):
    """A button or list row that a person chose."""

    model_config = ConfigDict(extra="forbid")
    id: str
    title: str
    description: str | None = None


class Utterance(BaseModel):
    """Something a person sends: a text, a choice, or any message object of Meta's (with its type).

    *reply_to* is the id of the message that it answers, if it answers one.
    """

    model_config = ConfigDict(extra="forbid")
    text: str | None = Field(default=None, min_length=1, max_length=4096)
    button_reply: Choice | None = None
    list_reply: Choice | None = None
    message: dict[str, object] | None = None
    reply_to: str | None = None

    def content(self) -> tuple[dict[str, object], str]:
        """Return the type and content as they stand in a webhook, and what the phone shows."""
        if self.text is not None:
            return {"type": "text", "text": {"body": self.text}}, self.text
        for kind, choice in (("button_reply", self.button_reply), ("list_reply", self.list_reply)):
            if choice is not None:
                interactive = {"type": kind, kind: choice.model_dump(exclude_none=True)}
                return {"type": "interactive", "interactive": interactive}, choice.title
        if self.message is not None and isinstance(self.message.get("type"), str):
            return self.message, f"[{self.message['type']}]"
        raise ValueError("one of text, button_reply, list_reply, message (with a type) is needed")


def make_simulator_app(stand_in: MetaStandIn) -> QuartTrio:
    """Return the application."""
    app = bare_app(__name__)
    add_gate(app)
    add_page(app)
    _add_meta(app, stand_in)
    _add_people(app, stand_in)
    _add_knobs(app, stand_in)
    _add_errors(app)
    return app


def _add_meta(app: QuartTrio, stand_in: MetaStandIn) -> None:
    @app.post("/<version>/<number_id>/messages")
    async def messages(version: str, number_id: str) -> Response:
        del version
        authorization = request.headers.get("Authorization", "")
        if not hmac.compare_digest(authorization.encode(), f"Bearer {SIMULATOR_ACCESS_TOKEN}".encode()):
            raise RefusedError(190, "Invalid OAuth access token - Cannot parse access token", status=401)
        if number_id != SIMULATOR_PHONE_NUMBER_ID:
            raise RefusedError(100, f"Unsupported post request. Object with ID '{number_id}' does not exist")
        try:
            body = json.loads(await request.get_data(cache=False))
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise RefusedError(100, "Invalid parameter", details="The request body is not a JSON object")
        return _json(await stand_in.take(body))


def _add_people(app: QuartTrio, stand_in: MetaStandIn) -> None:
    world = stand_in.world

    @app.get("/api/people")
    async def people() -> Response:
        return _json([_person(phone) for phone in world.phones.values()])

    @app.post("/api/people")
    async def add_person() -> Response:
        person = NewPerson.model_validate_json(await request.get_data())
        return _json(_person(world.phone(person.number, person.name)), HTTPStatus.CREATED)

    @app.post("/api/people/<number>/messages")
    async def say(number: str) -> Response:
        utterance = Utterance.model_validate_json(await request.get_data())
        content, shown = utterance.content()
        message_id = stand_in.say(world.phone(number), content, shown, utterance.reply_to)
        return _json({"id": message_id}, HTTPStatus.CREATED)

    @app.get("/api/people/<number>/messages")
    async def read(number: str) -> Response:
        phone = world.phone(number)
        since = _number(request.args.get("since", "0"))
        seconds = min(_number(request.args.get("wait", "0")), LONGEST_WAIT)
        await stand_in.wait_changed(phone, int(since), seconds)
        changed = [bubble.as_json() for bubble in phone.changed_since(int(since))]
        return _json({"messages": changed, "changes": phone.changes, "world": world.id})


def _add_knobs(app: QuartTrio, stand_in: MetaStandIn) -> None:
    @app.get("/api/requests")
    async def requests() -> Response:
        return _json([item.as_json() for item in stand_in.world.requests])

    @app.get("/api/faults")
    async def faults() -> Response:
        return _json(stand_in.faults.model_dump())

    @app.put("/api/faults")
    async def set_faults() -> Response:
        stand_in.faults = Faults.model_validate_json(await request.get_data())
        return _json(stand_in.faults.model_dump())

    @app.get("/livez")
    async def livez() -> Response:
        return _json({"status": "alive"})


def _add_errors(app: QuartTrio) -> None:
    @app.errorhandler(RefusedError)
    async def refused(error: RefusedError) -> Response:
        return _json(error.body, error.status)

    @app.errorhandler(ValidationError)
    async def invalid(error: ValidationError) -> Response:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        return _json({"error": f"{where}: {first['msg']}"}, HTTPStatus.BAD_REQUEST)

    @app.errorhandler(ValueError)
    async def nonsense(error: ValueError) -> Response:
        return _json({"error": str(error)}, HTTPStatus.BAD_REQUEST)

    @app.errorhandler(BlankAnswerError)
    async def blank(_: BlankAnswerError) -> Response:
        return Response(b"", status=HTTPStatus.BAD_GATEWAY.value)

    @app.errorhandler(LostAnswerError)
    async def lost(_: LostAnswerError) -> Response:
        # More is promised than comes: the server cannot but break the connection.
        return Response(_nothing(), status=HTTPStatus.OK.value, headers={"Content-Length": "1000"})


def _person(phone: Phone) -> dict[str, object]:
    return {"number": phone.number, "name": phone.name, "received": phone.received}


async def _nothing() -> AsyncIterator[bytes]:
    yield b""


def _json(body: object, status: int = HTTPStatus.OK) -> Response:
    return Response(json.dumps(body), status=int(status), content_type="application/json")


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is not a number")
    return max(0.0, number)
