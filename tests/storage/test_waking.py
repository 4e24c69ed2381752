"""Instances wake each other: after a commit, when nobody there is free, and never in vain."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
import trio

from promptpipe.model.ids import IdSource, JobId, WorkerId
from promptpipe.model.jobs import NewJob
from promptpipe.model.leases import Work
from promptpipe.model.messages import InDoubtRules
from promptpipe.storage.postgres import PostgresConfig, open_postgres_store
from promptpipe.storage.postgres.waking import CHANNEL
from tests.support.clock import ManualClock
from tests.support.eventually import eventually
from tests.support.runners import PlayedRunners

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from promptpipe.ports.store import Store


class Instance:
    """A store that notes what it is woken for, with runners that are free or not."""

    def __init__(self, store: Store, woken: list[Work]) -> None:
        self.store = store
        self.woken = woken
        self.free = True

    async def enqueue(self, name: str) -> None:
        await self.store.jobs.enqueue(NewJob(id=JobId(name), kind="k", run_at=ManualClock().now()))


@asynccontextmanager
async def instance(url: str, name: str) -> AsyncIterator[Instance]:
    """Give an instance that listens."""
    opened: Instance | None = None
    runners = PlayedRunners(free=lambda _: opened is None or opened.free)
    woken = runners.woken
    ids = IdSource(ManualClock().now, random.Random(name).getrandbits)
    config = PostgresConfig(url=url, pool_size=2)
    async with (
        open_postgres_store(
            config, ids=ids, worker=WorkerId(name), rules=InDoubtRules(), runners=runners, chance=lambda: 0.0
        ) as store,
        trio.open_nursery() as nursery,
    ):
        for task in store.background:
            nursery.start_soon(task)
        await eventually(lambda: len(woken) == len(Work))  # once it listens, it looks for everything
        woken.clear()
        opened = Instance(store, woken)
        yield opened
        nursery.cancel_scope.cancel()


def listeners(url: str) -> list[int]:
    with psycopg.connect(url, autocommit=True) as connection:
        query = f"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query = 'LISTEN {CHANNEL}'"
        return [pid for (pid,) in connection.execute(query.encode())]


async def test_work_that_nobody_here_is_free_for_wakes_the_others(fresh_database: str) -> None:
    """They are told of which kind it is; whoever told is not woken by it a second time."""
    async with instance(fresh_database, "a") as busy, instance(fresh_database, "b") as idle:
        busy.free = False
        await busy.enqueue("one")
        await eventually(lambda: idle.woken == [Work.JOB])
        assert busy.woken == [Work.JOB]


async def test_work_that_is_taken_here_wakes_nobody_else(fresh_database: str) -> None:
    """What the others would find is gone already."""
    async with instance(fresh_database, "a") as free, instance(fresh_database, "b") as idle:
        for number in range(20):
            await free.enqueue(f"{number}")
        free.free = False
        await free.enqueue("last")
        await eventually(lambda: len(idle.woken) > 0)
        assert idle.woken == [Work.JOB]


async def test_many_commits_are_told_together(fresh_database: str) -> None:
    """A burst is a few notifications, not one for each commit."""
    async with instance(fresh_database, "a") as busy, instance(fresh_database, "b") as idle:
        busy.free = False
        for number in range(100):
            await busy.enqueue(f"{number}")
        await eventually(lambda: len(idle.woken) > 0)
        assert len(idle.woken) < 50


async def test_listener_that_lost_its_connection_listens_again(fresh_database: str) -> None:
    """And looks for everything that it may have missed."""
    async with instance(fresh_database, "a") as busy, instance(fresh_database, "b") as idle:
        before = listeners(fresh_database)
        assert len(before) == 2
        with psycopg.connect(fresh_database, autocommit=True) as connection:
            for pid in before:
                connection.execute("SELECT pg_terminate_backend(%s)", [pid])
        await eventually(lambda: len(set(listeners(fresh_database)) - set(before)) == 2)
        await eventually(lambda: set(idle.woken) == set(Work))
        idle.woken.clear()
        busy.free = False
        await busy.enqueue("one")
        await eventually(lambda: Work.JOB in idle.woken)


@pytest.mark.parametrize("payload", ["", "x", "x:", "x:nothing", "x:job,nothing"])
async def test_notification_of_somebody_else_does_no_harm(fresh_database: str, payload: str) -> None:
    """Anybody who can connect can send one."""
    async with instance(fresh_database, "a") as busy, instance(fresh_database, "b") as idle:
        with psycopg.connect(fresh_database, autocommit=True) as connection:
            connection.execute("SELECT pg_notify(%s, %s)", [CHANNEL, payload])
        busy.free = False
        await busy.enqueue("one")
        await eventually(lambda: Work.JOB in idle.woken)
