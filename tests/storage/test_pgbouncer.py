"""Behind a pgbouncer in transaction mode nothing lives on a session, and nothing is missed."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
import trio

from promptpipe.model.errors import StoreUnavailableError
from promptpipe.model.ids import IdSource, JobId, WorkerId
from promptpipe.model.jobs import Ending, Finish, NewJob
from promptpipe.model.leases import Claim
from promptpipe.model.messages import InDoubtRules
from promptpipe.storage.postgres import PostgresConfig, open_postgres_store
from tests.support.clock import ManualClock
from tests.support.people import ENROLLMENT, batch, inbound
from tests.support.pgbouncer import open_pgbouncer
from tests.support.postgres import open_server
from tests.support.runners import PlayedRunners
from tests.support.script import TRANSCRIPT, converse
from tests.support.service import Home, open_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from promptpipe.ports.store import Store
    from tests.support.postgres import Programs, Server

JOBS = 60


@pytest.fixture
def server(postgres_programs: Programs, postgres_folder: Path, tmp_path: Path) -> Iterator[Server]:
    """Give a server of one's own."""
    with open_server(postgres_programs, postgres_folder / tmp_path.name, durable=False) as server:
        yield server


@pytest.fixture
def pooled_url(server: Server) -> Iterator[str]:
    """Give its URL by way of a pgbouncer."""
    with open_pgbouncer(server) as url:
        yield url


@asynccontextmanager
async def opened(url: str, worker: str, seconds: float = 30.0) -> AsyncIterator[Store]:
    ids = IdSource(ManualClock().now, random.Random(worker).getrandbits)
    config = PostgresConfig(url=url, pool_size=8, timeout=seconds, pooled=True)
    async with open_postgres_store(
        config, ids=ids, worker=WorkerId(worker), rules=InDoubtRules(), runners=PlayedRunners()
    ) as store:
        assert store.background == ()  # a session that listens would be somebody else's after the next commit
        yield store


async def test_two_instances_share_few_sessions(pooled_url: str, server: Server) -> None:
    """More transactions at once than there are sessions: each sees its own, and every job runs once."""
    done: list[JobId] = []

    async def work(store: Store, worker: str) -> None:
        while len(done) < JOBS:
            claimed = await store.jobs.claim(Claim(worker=WorkerId(worker), limit=3, seconds=30.0))
            await store.jobs.finish([Ending(item.lease, Finish()) for item in claimed.items])
            done.extend(item.job.id for item in claimed.items)

    async with opened(pooled_url, "a") as first, opened(pooled_url, "b") as second:
        async with trio.open_nursery() as nursery:
            for number in range(JOBS):
                store = (first, second)[number % 2]
                new = NewJob(id=JobId(f"{number:03}"), kind="k", run_at=ManualClock().now(), dedupe_key=f"{number}")
                nursery.start_soon(store.jobs.enqueue, new)
                nursery.start_soon(store.inbound.ingest, batch(inbound(f"{number}")), ENROLLMENT)
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(work, first, "a")
                nursery.start_soon(work, second, "b")
        with psycopg.connect(server.url) as observer:
            [(people, events, prepared)] = observer.execute(
                "SELECT (SELECT count(*) FROM conversation_participants), (SELECT count(*) FROM mailbox_events),"
                " (SELECT count(*) FROM pg_prepared_statements)"
            ).fetchall()
            [(sessions, listening)] = observer.execute(
                "SELECT count(*), count(*) FILTER (WHERE query LIKE 'LISTEN%') FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            ).fetchall()
    assert sorted(done) == [f"{number:03}" for number in range(JOBS)]
    assert (people, events, prepared, listening) == (1, JOBS, 0, 0)
    assert sessions <= 3


async def test_canceled_transaction_is_canceled_in_the_server(pooled_url: str, server: Server) -> None:
    """The cancel request finds its way through the pooler to the session that works for us."""
    async with opened(pooled_url, "a", seconds=0.5) as store:
        await store.probe()
        with psycopg.connect(server.url) as other:
            other.execute("LOCK TABLE jobs")
            with pytest.raises(StoreUnavailableError):
                await store.jobs.enqueue(NewJob(id=JobId("x"), kind="k", run_at=ManualClock().now()))
            waiting = other.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchall()
            assert waiting == [(0,)]


@pytest.mark.slow
async def test_conversation_behind_a_pooler(pooled_url: str, tmp_path: Path) -> None:
    """The whole service, with what it says at its start and what it does at its end."""
    settings = {"POSTGRES__POOLER": "transaction", "DAILY_PROMPT_REMINDER_DELAY": "0.5"}
    async with open_service(Home(tmp_path, pooled_url), **settings) as (service, stand_in):
        service.start()
        await service.wait_ready()
        phone = stand_in.world.phone("+16505551234", "Ada")
        await converse(stand_in, phone, within=40.0)
        assert phone.transcript() == TRANSCRIPT
        assert await service.stop() == 0
