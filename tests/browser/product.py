"""The product behind the page: the service as a process, the simulator on a thread."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from promptpipe.config import SIMULATOR_ACCESS_TOKEN, SIMULATOR_PHONE_NUMBER_ID
from promptpipe.net import listen
from promptpipe.simulator.app import make_simulator_app
from promptpipe.simulator.server import open_stand_in
from promptpipe.web.server import HttpServer

if TYPE_CHECKING:
    import httpx2

    from tests.support.service import Service

ADA = "+16505551234"


@dataclass
class Simulator:
    """The simulator, which is up sooner on a thread than as a process.

    Started again, it has forgotten everything, as a process has.
    """

    port: int
    webhook_url: str

    def start(self) -> None:
        """Start it, and return once it listens."""
        self._listens = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._serve,))
        self._thread.start()
        assert self._listens.wait(timeout=10)

    def stop(self) -> None:
        """Stop it at once, whatever it is doing."""
        trio.from_thread.run_sync(self._scope.cancel, trio_token=self._token)
        self._thread.join()

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with closing(listen("127.0.0.1", self.port, "simulator")) as listener, trio.CancelScope() as self._scope:
            async with open_stand_in(self.webhook_url) as stand_in, trio.open_nursery() as nursery:
                await nursery.start(HttpServer("simulator", make_simulator_app(stand_in), listener, grace=0).run)
                self._listens.set()


@dataclass
class Product:
    """Service and simulator, to be started, stopped and started again; and a client of the simulator."""

    service: Service
    simulator: Simulator
    client: httpx2.Client

    def send(self, to: str = ADA, **content: object) -> str:
        """Send a message as the service does, and return its id."""
        answer = self.client.post(
            f"/v24.0/{SIMULATOR_PHONE_NUMBER_ID}/messages",
            json={"messaging_product": "whatsapp", "to": to, **content},
            headers={"Authorization": f"Bearer {SIMULATOR_ACCESS_TOKEN}"},
        )
        assert answer.status_code == 200, answer.text
        wamid: str = answer.json()["messages"][0]["id"]
        return wamid

    def send_text(self, text: str, to: str = ADA) -> str:
        """Send a text as the service does."""
        return self.send(to, type="text", text={"body": text})

    def turn(self, **knobs: object) -> None:
        """Turn these knobs, and all others back."""
        assert self.client.put("/api/faults", json=knobs).status_code == 200

    def faults(self) -> dict[str, Any]:
        """Return the knobs as they are."""
        knobs: dict[str, Any] = self.client.get("/api/faults").json()
        return knobs

    def on_phone(self, number: str = ADA) -> list[dict[str, Any]]:
        """Return the messages on a phone."""
        messages: list[dict[str, Any]] = self.client.get(f"/api/people/{number}/messages").json()["messages"]
        return messages
