"""A conversation: from someone's text to the reply that leaves for the provider, at 100 texts a second.

The whole service, with a flow that answers at once, and a provider on loopback. Texts come at times of chance, from
people who are enrolled; a second measurement has the provider report three statuses for each reply, as Meta does.
"""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import trio

from bench.databases import count
from bench.figures import Figure, figure, percentiles
from bench.http import Client, serve, status_webhook, text_webhook
from bench.service import cpu_seconds, open_service
from bench.suite import BACK_ENDS
from bench.worker import settings_for
from promptpipe import app
from tests.support.echo import EchoFlow
from tests.support.service import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bench.suite import Suite

PER_SECOND = 100
PEOPLE = 100
TEXTS = 1_000
STATUSES = ("sent", "delivered", "read")
PATIENCE = 30.0


async def _serve(url: str, port: int, grpc_port: int, provider_port: int) -> None:
    settings = settings_for(
        url,
        http_bind=f"127.0.0.1:{port}",
        grpc_bind=f"127.0.0.1:{grpc_port}",
        simulator_bind=f"127.0.0.1:{provider_port}",
        auto_enroll=True,
    )
    async with app.open_components(settings) as opened:
        await app.run(replace(opened, flows=[EchoFlow()], recoverables=[]))


@dataclass
class Street:
    """People who write, and the provider between them and the service."""

    port: int
    statuses: tuple[str, ...]
    client: Client = field(init=False)
    written: dict[str, float] = field(default_factory=dict)
    """When each text was, just before its webhook left."""

    left: dict[str, float] = field(default_factory=dict)
    """When the reply to each had arrived at the provider."""

    chance: random.Random = field(default_factory=lambda: random.Random(20260301))  # noqa: S311
    reports: trio.MemorySendChannel[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.client = Client(self.port)

    def answer(self, body: bytes) -> Mapping[str, object]:
        """Take a reply."""
        now = time.perf_counter()
        request: dict[str, Any] = json.loads(body)
        text = request["text"]["body"].removeprefix("echo: ")
        self.left.setdefault(text, now)
        wamid = f"wamid.out.{text}"
        for status in self.statuses:
            self.reports.send_nowait(
                status_webhook(request["to"].removeprefix("+"), wamid, status, request["biz_opaque_callback_data"])
            )
        return {
            "messaging_product": "whatsapp",
            "contacts": [{"input": request["to"], "wa_id": request["to"].removeprefix("+")}],
            "messages": [{"id": wamid}],
        }

    async def write(self, texts: int, name: str) -> None:
        """Write so many texts, each at its time, and return when all are answered."""
        async with trio.open_nursery() as nursery:
            at = trio.current_time()
            for number in range(texts):
                at += self.chance.expovariate(PER_SECOND)
                await trio.sleep_until(at)
                nursery.start_soon(self._write, number % PEOPLE, f"{name}.{number}")
        with trio.fail_after(PATIENCE):
            while len(self.left) < len(self.written):  # noqa: ASYNC110
                await trio.sleep(0.01)

    async def _write(self, person: int, text: str) -> None:
        request = text_webhook(f"1650555{person:04}", f"wamid.in.{text}", text)
        self.written[text] = time.perf_counter()
        await self._post(request)

    async def report(self, reports: trio.MemoryReceiveChannel[bytes]) -> None:
        """Tell the service of statuses."""
        async with trio.open_nursery() as nursery:
            async for request in reports:
                nursery.start_soon(self._post, request)

    async def _post(self, request: bytes) -> None:
        if (status := await self.client.ask(request)) != HTTPStatus.OK:
            raise RuntimeError(f"HTTP {status}")


async def _converse(
    port: int, provider_port: int, process: int, texts: int, statuses: tuple[str, ...]
) -> tuple[list[float], float]:
    """Return the seconds from each text to its reply, and the CPU µs of the service for each."""
    street = Street(port, statuses)
    street.reports, reports = trio.open_memory_channel[bytes](100_000)
    [listener] = await trio.open_tcp_listeners(provider_port, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, listener, street.answer)
        nursery.start_soon(street.report, reports)
        await street.client.wait_ready()
        await street.write(PEOPLE, "hello")
        before = cpu_seconds(process)
        await street.write(texts, "text")
        cpu = cpu_seconds(process) - before
        nursery.cancel_scope.cancel()
    late = [street.left[text] - street.written[text] for text in street.written if text.startswith("text")]
    return late, cpu / texts * 1e6


def figures(suite: Suite) -> Iterator[Figure]:
    """Yield how soon people are answered."""
    texts = suite.number(TEXTS)
    for back_end in BACK_ENDS:
        for statuses, said in (((), ""), (STATUSES, ", with 3 statuses for each")):
            url = suite.databases.new(back_end)
            port, grpc_port, provider_port = free_port(), free_port(), free_port()
            log = suite.databases.folder / "conversation.log"
            with open_service(log, _serve, url, port, grpc_port, provider_port) as process:
                late, micros = trio.run(_converse, port, provider_port, process, texts, statuses)
            if count(url, "SELECT count(*) FROM responses") != texts + PEOPLE:
                raise RuntimeError("not every text is in the database")
            bars = (None, None) if statuses else (15.0, 50.0)
            of = partial(percentiles, group="conversation", of=back_end, at_most=bars)
            yield from of(late, what=f"text to reply leaving, {PER_SECOND} a second{said}")
            what = f"the service's CPU for each text and its reply{said}"
            yield figure([micros], group="conversation", what=what, of=back_end, unit="µs")
