"""kill -9 of whoever has people's lanes in hand, for as long as one likes, while everybody goes on writing."""

from __future__ import annotations

import json
import os
import random
import signal
from functools import partial
from typing import TYPE_CHECKING

import httpx2
import pytest
import trio

from tests.faults.cluster import SETTINGS, open_cluster
from tests.faults.load import Load
from tests.faults.spawner import start_forked
from tests.faults.support import wait_settled
from tests.support.postgres import as_url, drop_database, new_database
from tests.support.service import Home, open_service

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from promptpipe.simulator.meta_stand_in import MetaStandIn
    from tests.support.service import Service

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("PROMPTPIPE_TEST_TORTURE_SECONDS", "8"))
"""How long it lasts; a minute before a release."""

DRAIN_SECONDS = 45.0
PEOPLE = 40
PAUSE_SECONDS = 2.0

ANSWER_SECONDS = "0.03"
"""How long the flow takes to answer. In the end nearly everybody is a suspect, and those are served one by one."""


async def torture(services: Sequence[Service], chance: random.Random) -> None:
    """Kill one of *services* at moments nobody chose, and start it again at once, which all of them survive."""
    with trio.move_on_after(SECONDS):
        while True:
            await trio.sleep(chance.uniform(0.4, 1.2))
            victim = chance.choice(services)
            with trio.CancelScope(shield=True):
                await kill(victim)
    for service in services:
        await service.wait_ready()


async def kill(service: Service) -> None:
    service.signal(signal.SIGKILL)
    assert await service.wait_ended() == -signal.SIGKILL, service.log()
    start_forked(service, "--echo", ANSWER_SECONDS)


async def check(service: Service, load: Load, stand_in: MetaStandIn) -> None:
    """Check that nothing is lost, out of order, handled twice or stuck."""
    await wait_settled(service, DRAIN_SECONDS)
    load.check_answers(stand_in)
    heard = {}
    query = "SELECT a.address, f.state_data FROM flow_states f JOIN participant_addresses a USING (participant_id)"
    for number, data in service.rows(query):
        heard[number] = (json.loads(data) if isinstance(data, str) else data)["heard"]
    assert heard == {number: [f"echo: {n}" for n in range(said)] for number, said in load.written.items()}
    assert service.rows("SELECT count(*) FROM lanes WHERE leased OR due_at IS NOT NULL") == [(0,)]
    assert load.acknowledged > PEOPLE


@pytest.mark.timeout(SECONDS + 120)
async def test_lanes_of_a_process_that_is_killed_all_the_time(tmp_path: Path) -> None:
    """On SQLite there is one: what it had in hand, the next one has, and nobody can tell."""
    async with open_service(Home.on_sqlite(tmp_path), **SETTINGS) as (service, stand_in):
        start_forked(service, "--echo", ANSWER_SECONDS)
        await service.wait_ready()
        async with httpx2.AsyncClient(timeout=10) as client, trio.open_nursery() as nursery:
            load = Load(post=partial(service.post, client=client), people=PEOPLE, pause=PAUSE_SECONDS, repeated=0.1)
            nursery.start_soon(load.run)
            await torture([service], random.Random(20260305))
            load.stop()
        await check(service, load, stand_in)
        assert await service.stop() == 0


@pytest.mark.timeout(SECONDS + 120)
async def test_lanes_of_instances_that_are_killed_all_the_time(postgres_url: str, tmp_path: Path) -> None:
    """On PostgreSQL another one takes over, be it while the first is still starting again."""
    url = new_database(postgres_url)
    async with open_cluster(tmp_path, as_url(url), instances=3) as cluster:
        load = Load(post=cluster.post, people=PEOPLE, pause=PAUSE_SECONDS, repeated=0.1)
        for instance in cluster.instances:
            start_forked(instance, "--echo", ANSWER_SECONDS)
        for instance in cluster.instances:
            await instance.wait_ready()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.run)
            await torture(cluster.instances, random.Random(20260306))
            load.stop()
        await check(cluster.instances[0], load, cluster.stand_in)
        await cluster.stop()
    drop_database(postgres_url, url)
