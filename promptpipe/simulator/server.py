"""The simulator as a program: its server, its webhooks, and an end when the signal comes."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx2
import structlog
import trio

from promptpipe.config import SIMULATOR_APP_SECRET, is_loopback, split_bind
from promptpipe.model.errors import SettingsError
from promptpipe.net import listen
from promptpipe.runtime.clock import SystemClock
from promptpipe.runtime.supervisor import Supervisor, stop_on_signal, stop_with_process
from promptpipe.simulator.app import make_simulator_app
from promptpipe.simulator.meta_stand_in import MetaStandIn
from promptpipe.simulator.webhooks import Webhooks
from promptpipe.web.server import HttpServer

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from promptpipe.config import Settings

WEBHOOK_SECONDS = 10.0

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_stand_in(webhook_url: str) -> AsyncIterator[MetaStandIn]:
    """Give a stand-in for Meta that tells of what happens at *webhook_url*."""
    chance = random.SystemRandom().random
    async with (
        httpx2.AsyncClient(timeout=WEBHOOK_SECONDS, follow_redirects=False) as client,
        trio.open_nursery() as nursery,
    ):
        webhooks = Webhooks(client, webhook_url, SIMULATOR_APP_SECRET, chance)
        yield MetaStandIn(webhooks, nursery, SystemClock(), chance)
        nursery.cancel_scope.cancel()


async def serve_simulator(
    settings: Settings, webhook_url: str | None = None, *, with_process: int | None = None
) -> None:
    """Run the simulator until a signal ends it, or the process *with_process* has ended.

    Without a *webhook_url*, it is the service's of *settings*.
    """
    if not is_loopback(settings.simulator_bind):
        raise SettingsError("PROMPTPIPE_SIMULATOR_BIND: must be on loopback; anyone who reaches it is anyone")
    host, port = split_bind(settings.simulator_bind)
    listener = listen(host, port, "PROMPTPIPE_SIMULATOR_BIND")
    try:
        await _serve(listener, webhook_url or f"http://{settings.http_bind}/webhooks/whatsapp", with_process)
    finally:
        listener.close()


async def _serve(listener: socket.socket, webhook_url: str, with_process: int | None) -> None:
    supervisor = Supervisor(grace=0.5)
    async with open_stand_in(webhook_url) as stand_in, trio.open_nursery() as nursery:
        await nursery.start(stop_on_signal, supervisor.stop)
        if with_process is not None:
            await nursery.start(stop_with_process, with_process, supervisor.stop)
        server = HttpServer("simulator", make_simulator_app(stand_in), listener, grace=0.5)
        log.info("simulator ready", webhooks=webhook_url)
        await supervisor.run([server], draining=lambda: None)
        nursery.cancel_scope.cancel()
