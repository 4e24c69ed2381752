"""Several instances on one database, killed and frozen at random while the database restarts under them."""

from __future__ import annotations

import random
import signal
from typing import TYPE_CHECKING

import pytest
import trio

from tests.faults.cluster import ANSWER_SECONDS, CONNECTIONS, connections, open_cluster
from tests.faults.load import Load
from tests.faults.spawner import start_forked
from tests.faults.support import wait_settled
from tests.support.eventually import eventually
from tests.support.postgres import as_url, open_server

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.faults.cluster import Cluster
    from tests.support.postgres import Programs, Server
    from tests.support.service import Service

pytestmark = pytest.mark.slow

SECONDS = 20
DATABASE_RESTARTS = {10, 18}
"""In which seconds."""

FREEZES = {5, 15}
"""In which seconds an instance is not killed but stopped, for longer than its leases last."""
FROZEN_SECONDS = 4.5

DRAIN_SECONDS = 45.0
"""A lease, a send time-out, a doubt and its next attempt, with room for a machine that has other things to do."""


async def torment(cluster: Cluster, server: Server, chance: random.Random) -> None:
    """Kill an instance each second and start it again at once, or freeze it; now and then restart the database."""
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        for second in range(1, SECONDS + 1):
            await trio.sleep_until(begun + second)
            instance = chance.choice(cluster.instances)
            if second in FREEZES:
                nursery.start_soon(freeze, instance)
                continue
            instance.signal(signal.SIGKILL)
            await instance.wait_ended()
            start_forked(instance, "--echo", ANSWER_SECONDS)
            if second in DATABASE_RESTARTS:
                await trio.to_thread.run_sync(server.stop, signal.SIGQUIT)
                server.launch()
                await trio.to_thread.run_sync(server.wait_started)


async def freeze(instance: Service) -> None:
    """Stop a process where it is, and let it go on when others have its work; if it still is there."""
    process = instance.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    await trio.sleep(FROZEN_SECONDS)
    process.send_signal(signal.SIGCONT)


def within_bounds(found: Mapping[str, int]) -> bool:
    """Return whether these are the connections of three instances, none of which has too many."""
    return found.keys() == {"0", "1", "2"} and max(found.values()) <= CONNECTIONS


@pytest.mark.timeout(180)
async def test_killed_every_second_while_the_database_restarts(
    postgres_programs: Programs, postgres_folder: Path, tmp_path: Path
) -> None:
    """Nothing is lost, nothing happens twice, order is kept, no lane is stuck and no connection is left behind."""
    with open_server(postgres_programs, postgres_folder / tmp_path.name) as server:
        async with open_cluster(tmp_path, as_url(server.new_database()), instances=3) as cluster:
            cluster.stand_in.faults.latency = 0.02
            load = Load(post=cluster.post, people=20, pause=0.5, repeated=0.1)
            await cluster.start()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(load.run)
                await torment(cluster, server, random.Random(20260304))
                load.stop()
            first = cluster.instances[0]
            await wait_settled(first, DRAIN_SECONDS)
            load.check_answers(cluster.stand_in)
            for instance in cluster.instances:
                await instance.wait_ready()
            assert first.rows("SELECT count(*) FROM instances") == [(3,)]
            await eventually(lambda: within_bounds(connections(server.url)))
            await cluster.stop()
            assert first.rows("SELECT count(*) FROM instances") == [(0,)]
            assert first.rows("SELECT count(*) FROM lanes WHERE worker IS NOT NULL") == [(0,)]
            await eventually(lambda: connections(server.url) == {})
