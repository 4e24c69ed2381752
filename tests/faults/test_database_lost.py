"""A database that goes away and comes back, here or elsewhere: the service waits, and goes on by itself."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

import pytest
import trio
from psycopg.conninfo import conninfo_to_dict

from tests.faults.cluster import open_cluster
from tests.faults.load import Load
from tests.faults.support import wait_settled
from tests.support.eventually import eventually
from tests.support.postgres import Server, as_url, open_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.cluster import Cluster
    from tests.support.postgres import Programs

pytestmark = pytest.mark.slow

AWAY_SECONDS = 3.0
DRAIN_SECONDS = 45.0

WITHOUT_STANDBY_SECONDS = 10.0
"""Time for each message to be refused, and to be repeated after that."""


async def wait_refused(cluster: Cluster, load: Load) -> None:
    """Wait until no instance is ready and webhooks are answered 503."""
    await eventually(lambda: is_everywhere(cluster, ready=False))
    before = load.answers[HTTPStatus.SERVICE_UNAVAILABLE]
    await eventually(lambda: load.answers[HTTPStatus.SERVICE_UNAVAILABLE] > before)


async def wait_taken(cluster: Cluster, load: Load) -> None:
    """Wait until all instances are ready and webhooks are acknowledged."""
    await eventually(lambda: is_everywhere(cluster, ready=True), within=30.0)
    before = load.acknowledged
    await eventually(lambda: load.acknowledged > before + load.people)


async def is_everywhere(cluster: Cluster, *, ready: bool) -> bool:
    return await cluster.ready() == [ready] * len(cluster.instances)


async def check_end(cluster: Cluster, load: Load) -> None:
    """Check that all that was acknowledged has its one answer, and that no instance had to be started again."""
    await wait_settled(cluster.instances[0], DRAIN_SECONDS)
    load.check_answers(cluster.stand_in)
    assert load.answers.keys() == {HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE}
    await cluster.stop()


@pytest.mark.timeout(180)
async def test_database_restarts_and_is_away_for_a_while(
    postgres_programs: Programs, postgres_folder: Path, tmp_path: Path
) -> None:
    """The process stays, refuses webhooks with 503, is not ready, and goes on by itself; nothing is lost or doubled."""
    with open_server(postgres_programs, postgres_folder / tmp_path.name) as server:
        url = as_url(server.new_database())
        async with open_cluster(tmp_path, url, instances=1) as cluster, trio.open_nursery() as nursery:
            load = Load(post=cluster.post, people=8, pause=0.2, repeated=0.1)
            await cluster.start()
            nursery.start_soon(load.run)
            await wait_taken(cluster, load)
            await trio.to_thread.run_sync(server.stop, signal.SIGQUIT)
            server.launch()
            await trio.to_thread.run_sync(server.wait_started)
            await wait_taken(cluster, load)
            await trio.to_thread.run_sync(server.stop, signal.SIGINT)
            await wait_refused(cluster, load)
            await trio.sleep(AWAY_SECONDS)
            assert await cluster.ready() == [False]
            server.launch()
            await wait_taken(cluster, load)
            load.stop()
            await check_end(cluster, load)


@contextmanager
def open_pair(programs: Programs, folder: Path) -> Iterator[tuple[Server, Server]]:
    """Give a primary, and a standby that has every commit before it is known to anybody."""
    standby = Server(programs, folder.with_name(f"{folder.name}-standby"))
    with open_server(programs, folder) as primary:
        try:
            standby.create_standby_of(primary)
            standby.start()
            primary.wait_for_standby()
            yield primary, standby
        finally:
            standby.stop(signal.SIGQUIT)


def as_url_of_both(url: str, other: Server) -> str:
    """Return *url* with another host, to be tried when the first one does not take writes."""
    known = conninfo_to_dict(url)
    first = f"{known['host']}:{known['port']}"
    return as_url(url).replace(first, f"{first},127.0.0.1:{other.port}")


@pytest.mark.timeout(180)
async def test_failover_to_a_synchronous_standby(
    postgres_programs: Programs, postgres_folder: Path, tmp_path: Path
) -> None:
    """The primary is killed under load and the standby promoted: whatever was acknowledged is answered, once, in order.

    In between the instances stay, refuse webhooks with 503 and are not ready. They find the new primary by themselves.
    """
    with open_pair(postgres_programs, postgres_folder / tmp_path.name) as (primary, standby):
        await eventually(primary.synchronous)
        url = as_url_of_both(primary.new_database(), standby)
        async with open_cluster(tmp_path, url, instances=2) as cluster, trio.open_nursery() as nursery:
            load = Load(post=cluster.post, people=8, pause=0.2, repeated=0.1)
            await cluster.start()
            nursery.start_soon(load.run)
            await wait_taken(cluster, load)
            primary.kill()
            await wait_refused(cluster, load)
            await trio.to_thread.run_sync(standby.promote)
            await wait_taken(cluster, load)
            load.stop()
            await check_end(cluster, load)


@pytest.mark.timeout(180)
async def test_standby_that_is_away_when_the_primary_is_lost(
    postgres_programs: Programs, postgres_folder: Path, tmp_path: Path
) -> None:
    """What the standby has not got is not acknowledged, however often it is repeated; so the failover loses nothing.

    Meanwhile the instance is not ready.
    """
    with open_pair(postgres_programs, postgres_folder / tmp_path.name) as (primary, standby):
        await eventually(primary.synchronous)
        url = as_url_of_both(primary.new_database(), standby)
        async with (
            open_cluster(tmp_path, url, instances=1, POSTGRES__TIMEOUT="1") as cluster,
            trio.open_nursery() as nursery,
        ):
            load = Load(post=cluster.post, people=8, pause=0.2, repeated=0.1)
            await cluster.start()
            nursery.start_soon(load.run)
            await wait_taken(cluster, load)
            standby.kill()
            await trio.sleep(WITHOUT_STANDBY_SECONDS / 2)
            before = load.acknowledged
            await wait_refused(cluster, load)
            await trio.sleep(WITHOUT_STANDBY_SECONDS)
            assert load.acknowledged == before
            assert await cluster.ready() == [False]
            primary.kill()
            standby.start()
            await trio.to_thread.run_sync(standby.promote)
            await wait_taken(cluster, load)
            load.stop()
            await check_end(cluster, load)
