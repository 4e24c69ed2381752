"""A simulator of its own for a test, and the service's side of it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2
import trio
from quart import request
from quart_trio import QuartTrio

from promptpipe.channels.whatsapp.parse import parse
from promptpipe.channels.whatsapp.signature import HEADER, is_signed
from promptpipe.config import SIMULATOR_ACCESS_TOKEN, SIMULATOR_APP_SECRET, SIMULATOR_PHONE_NUMBER_ID
from promptpipe.net import listen
from promptpipe.simulator.app import make_simulator_app
from promptpipe.simulator.server import open_stand_in
from promptpipe.web.server import HttpServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from promptpipe.model.inbound import Update
    from promptpipe.simulator.meta_stand_in import MetaStandIn

ADA = "+16505551234"
TOKEN = {"Authorization": f"Bearer {SIMULATOR_ACCESS_TOKEN}"}
SEND = f"/v24.0/{SIMULATOR_PHONE_NUMBER_ID}/messages"


@dataclass
class Receiver:
    """The service's side: takes webhooks, and answers them as told."""

    answers: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def app(self) -> QuartTrio:
        app = QuartTrio(__name__)

        @app.post("/hook")
        async def hook() -> tuple[str, int]:
            body = await request.get_data()
            assert isinstance(body, bytes)
            assert is_signed(SIMULATOR_APP_SECRET, body, request.headers[HEADER])
            self.bodies.append(body)
            return "", self.answers.pop(0) if self.answers else 200

        return app

    @property
    def updates(self) -> list[Update]:
        return [update for body in self.bodies for update in parse(body, SIMULATOR_PHONE_NUMBER_ID).updates]


@dataclass
class Simulated:
    """A simulator, a client of it, and the receiver of its webhooks."""

    client: httpx2.AsyncClient
    stand_in: MetaStandIn
    receiver: Receiver

    async def send(self, **change: object) -> httpx2.Response:
        body = {
            "messaging_product": "whatsapp",
            "to": ADA,
            "type": "text",
            "text": {"body": "hello"},
            "biz_opaque_callback_data": "m:1",
            **change,
        }
        return await self.client.post(SEND, json=body, headers=TOKEN)

    async def read(self) -> list[dict[str, Any]]:
        answer = await self.client.get(f"/api/people/{ADA}/messages")
        messages: list[dict[str, Any]] = answer.json()["messages"]
        return messages


@asynccontextmanager
async def open_simulated() -> AsyncIterator[Simulated]:
    receiver = Receiver()
    hooks, sims = listen("127.0.0.1", 0, "hooks"), listen("127.0.0.1", 0, "simulator")
    hook_url = f"http://127.0.0.1:{hooks.getsockname()[1]}/hook"
    async with open_stand_in(hook_url) as stand_in, trio.open_nursery() as nursery:
        await nursery.start(HttpServer("hooks", receiver.app(), hooks, grace=0).run)
        await nursery.start(HttpServer("simulator", make_simulator_app(stand_in), sims, grace=0).run)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{sims.getsockname()[1]}") as client:
            yield Simulated(client, stand_in, receiver)
        nursery.cancel_scope.cancel()
    hooks.close()
    sims.close()
