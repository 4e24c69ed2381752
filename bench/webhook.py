"""Webhooks: a signed text message until it is acknowledged, beside the same server with a store that keeps nothing.

Both check the signature and parse the body; nothing else runs in the process. A closed loop of connections asks, and on
SQLite an answer means that the message is committed.
"""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from http import HTTPStatus
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import trio

from bench.databases import count
from bench.figures import Figure, figure
from bench.http import Client, text_webhook
from bench.service import cpu_seconds, open_service
from bench.worker import settings_for
from promptpipe import app
from promptpipe.app.parts import make_http_server
from promptpipe.model.inbound import IngestReport
from promptpipe.net import listen
from promptpipe.services.readiness import Readiness
from tests.support.service import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.suite import Suite
    from promptpipe.model.inbound import Enrollment, InboundBatch

CONNECTIONS = 32
REQUESTS = 5_000
PEOPLE = 200
STORING = "committed"
NOT_STORING = "answered with nothing stored"


class NullInbound:
    """`ports.store.InboundStore` that keeps nothing."""

    async def ingest(self, batch: InboundBatch, enrollment: Enrollment | None) -> IngestReport:
        """Say that everything was kept."""
        del enrollment
        await trio.lowlevel.checkpoint()
        return IngestReport(stored=len(batch.updates))


async def _serve(url: str, port: int, store: str) -> None:
    async with app.open_components(settings_for(url, auto_enroll=True)) as opened:
        nothing: Any = SimpleNamespace(inbound=NullInbound())
        components = opened if store == STORING else replace(opened, store=nothing)
        with listen("127.0.0.1", port, "bench") as listener, trio.open_signal_receiver(signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                server = make_http_server(components, Readiness(), listener)
                await nursery.start(server.run)
                async for _ in signals:
                    server.stop()
                    break


async def _ask(port: int, process: int, requests: list[bytes]) -> tuple[float, float]:
    """Return how many requests are answered in a second, and the CPU µs that *process* takes for each.

    Each connection asks as soon as it has its answer.
    """
    client = Client(port)
    await client.wait_ready("/livez")

    async def connection() -> None:
        while requests:
            status = await client.ask(requests.pop())
            if status != HTTPStatus.OK:
                raise RuntimeError(f"HTTP {status}")

    number, before, begun = len(requests), cpu_seconds(process), time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(CONNECTIONS):
            nursery.start_soon(connection)
    took, cpu = time.perf_counter() - begun, cpu_seconds(process) - before
    return number / took, cpu / number * 1e6


def _round(suite: Suite, store: str) -> tuple[float, float]:
    """Return the requests per second and the service's CPU µs for each."""
    url, port, number = suite.databases.new("sqlite"), free_port(), suite.number(REQUESTS)
    requests = [text_webhook(f"1650555{n % PEOPLE:04}", f"wamid.{n}", f"message {n}") for n in range(number)]
    with open_service(suite.databases.folder / "webhook.log", _serve, url, port, store) as process:
        measured = trio.run(_ask, port, process, requests)
    if store == STORING and count(url, "SELECT count(*) FROM responses") != number:
        raise RuntimeError("not everything that was acknowledged is in the database")
    return measured


def figures(suite: Suite) -> Iterator[Figure]:
    """Yield how many webhooks are taken, and their share of what the server could do."""
    rounds: dict[str, list[tuple[float, float]]] = {STORING: [], NOT_STORING: []}
    for number in suite.many_rounds:
        for store in list(rounds)[:: -1 if number % 2 else 1]:
            rounds[store].append(_round(suite, store))
    for store, measured in rounds.items():
        rates, cpu = zip(*measured, strict=True)
        yield figure(
            rates, group="webhook", what=f"webhooks {store}, by {CONNECTIONS} connections", of="sqlite", unit="/s"
        )
        yield figure(cpu, group="webhook", what=f"the service's CPU for each {store}", of="sqlite", unit="µs")
    shares = [ours[0] / server[0] for ours, server in zip(rounds[STORING], rounds[NOT_STORING], strict=True)]
    share = f"webhooks {STORING}, of those {NOT_STORING}"
    yield figure(shares, group="webhook", what=share, of="sqlite", unit="x", at_least=0.8)
