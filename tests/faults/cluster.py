"""Several instances of the service on one database, and Meta on the other side of a balancer."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx2
import psycopg
import trio

from promptpipe.channels.whatsapp import signature
from promptpipe.config import SIMULATOR_APP_SECRET
from promptpipe.runtime.clock import SystemClock
from promptpipe.simulator.meta_stand_in import MetaStandIn
from promptpipe.simulator.webhooks import Webhooks
from tests.faults.spawner import start_forked
from tests.support.service import Home, Service, free_port, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

ANSWER_SECONDS = "0.1"
"""How long the flow takes to answer, so that who is killed or frozen has conversations in hand."""

POOL_SIZE = 4
CONNECTIONS = POOL_SIZE + 2
"""What an instance may have at most: the pool's, and those that wake and are woken."""

SETTINGS = {
    "LEASE": "3",
    "WHATSAPP__SEND_TIMEOUT": "1",
    "IN_DOUBT_WAIT": "10",
    "POSTGRES__POOL_SIZE": str(POOL_SIZE),
    "POSTGRES__TIMEOUT": "5",
}
"""A doubt begins when the request surely has ended, and lasts ten seconds. In that time a status settles it if the
request has arrived, for Meta's stand-in repeats what is not taken every two seconds or sooner: what was sent is not
sent again. What never arrived is, before a test has lost its patience."""


class Balancer(httpx2.AsyncHTTPTransport):
    """Sends each request to one of several ports, by chance, whether anybody listens there or not."""

    def __init__(self, ports: Sequence[int], chance: random.Random) -> None:
        super().__init__()
        self._ports = ports
        self._chance = chance

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.url = request.url.copy_with(port=self._chance.choice(self._ports))
        return await super().handle_async_request(request)


@dataclass
class Cluster:
    """The instances, the way to them, and the people behind it."""

    instances: Sequence[Service]
    client: httpx2.AsyncClient
    stand_in: MetaStandIn
    url: str = field(default="http://127.0.0.1/webhooks/whatsapp")

    async def post(self, body: bytes) -> int:
        """Post a signed webhook to any instance and return the HTTP status."""
        headers = {signature.HEADER: signature.sign(SIMULATOR_APP_SECRET, body), "Content-Type": "application/json"}
        return (await self.client.post(self.url, content=body, headers=headers)).status_code

    async def start(self) -> None:
        """Start all instances, and wait until they take webhooks."""
        for instance in self.instances:
            start_forked(instance, "--echo", ANSWER_SECONDS)
        for instance in self.instances:
            await instance.wait_ready()

    async def ready(self) -> list[bool]:
        """Return of each instance whether it says that it takes webhooks; it must answer."""
        async with httpx2.AsyncClient() as client:
            answers = [await client.get(f"{instance.url}/readyz") for instance in self.instances]
        assert {answer.status_code for answer in answers} <= {200, 503}
        return [answer.status_code == 200 for answer in answers]

    async def stop(self) -> None:
        """Stop all instances in an orderly way."""
        async with trio.open_nursery() as nursery:
            for instance in self.instances:
                nursery.start_soon(stop_orderly, instance)


async def stop_orderly(instance: Service) -> None:
    """Stop an instance, which ends well."""
    assert await instance.stop() == 0, instance.log()


@asynccontextmanager
async def open_cluster(folder: Path, database_url: str, *, instances: int, **settings: str) -> AsyncIterator[Cluster]:
    """Give instances that are not started yet; each names its connections by its place in the list."""
    simulator_port = free_port()
    chance = random.Random(20260303)
    services = []
    for place in range(instances):
        home = Home(folder / str(place), f"{database_url}?application_name={place}")
        home.folder.mkdir()
        services.append(Service(home, simulator_port, SETTINGS | settings))
    balancer = Balancer([service.port for service in services], chance)
    async with httpx2.AsyncClient(transport=balancer, timeout=10) as client:

        @asynccontextmanager
        async def opening() -> AsyncIterator[MetaStandIn]:
            async with trio.open_nursery() as nursery:
                webhooks = Webhooks(client, Cluster.url, SIMULATOR_APP_SECRET, chance.random)
                yield MetaStandIn(webhooks, nursery, SystemClock(), chance.random)
                nursery.cancel_scope.cancel()

        async with serving(opening(), simulator_port) as stand_in:
            try:
                yield Cluster(services, client, stand_in)
            finally:
                for service in services:
                    service.clean_up()


def connections(url: str) -> dict[str, int]:
    """Return how many connections each instance has, as the server at *url* sees it."""
    query = """
        SELECT application_name, count(*) FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name <> ''
        GROUP BY application_name
    """
    with psycopg.connect(url, application_name="observer") as connection:
        return dict(connection.execute(query).fetchall())
