"""Closing a pool: who is waited for, and who is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from psycopg import errors

from promptpipe.storage.postgres.driver import Pool, PoolClosedError
from tests.postgres.test_connecting import silent_port
from tests.postgres.test_pool import held, pid

if TYPE_CHECKING:
    from tests.postgres.observer import Observer


async def test_closing_waits(url: str, observer: Observer) -> None:
    """Closing waits for those who use a connection; those who wait for one, or come later, get `PoolClosedError`."""
    pool = Pool(url, size=1)

    async def be_refused() -> None:
        with pytest.raises(PoolClosedError):
            await pid(pool)

    async with trio.open_nursery() as nursery, held(pool, 1) as release:
        nursery.start_soon(be_refused)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(pool.close)
        await trio.testing.wait_all_tasks_blocked()
        assert pool.statistics.waiting == 0
        assert pool.statistics.in_use == 1
        await be_refused()
        release.set()
    assert pool.statistics.open == 0
    await observer.wait_backends(0)


async def test_closing_forces(url: str, observer: Observer) -> None:
    """After the grace, connections in use are closed under their users' hands."""
    pool = Pool(url, size=1)
    async with trio.open_nursery() as nursery:

        async def work() -> None:
            with pytest.raises(errors.OperationalError):
                async with pool.connection() as connection:
                    await connection.execute("SELECT pg_sleep(10)")

        nursery.start_soon(work)
        await observer.wait_running()
        began = trio.current_time()
        await pool.close(grace=0.05)
        assert trio.current_time() - began < 1.0
    assert pool.statistics.open == 0


async def test_closing_while_connecting() -> None:
    """Who is connecting when the pool is closed gets `PoolClosedError`, and leaves nothing behind."""
    with silent_port() as port:
        pool = Pool(f"host=127.0.0.1 port={port} user=x", size=1)
        async with trio.open_nursery() as nursery:

            async def connect() -> None:
                with pytest.raises(PoolClosedError):
                    await pid(pool)

            nursery.start_soon(connect)
            await trio.testing.wait_all_tasks_blocked()
            await pool.close()
