"""The pool: few connections, used again, replaced when they are not what they were."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import trio
import trio.testing
from psycopg import errors

from promptpipe.storage.postgres.driver import Pool, PoolTimeoutError
from tests.postgres.proxy import open_proxy
from tests.postgres.test_connecting import silent_port
from tests.support.service import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from promptpipe.storage.postgres.driver import Connection
    from tests.postgres.observer import Observer
    from tests.support.postgres import Server


@asynccontextmanager
async def held(pool: Pool, number: int) -> AsyncIterator[trio.Event]:
    """Keep connections busy until the event is set, or the block ends."""
    release = trio.Event()

    async def hold() -> None:
        async with pool.connection():
            await release.wait()

    async with trio.open_nursery() as nursery:
        for _ in range(number):
            nursery.start_soon(hold)
        while pool.statistics.in_use < number:
            await trio.testing.wait_all_tasks_blocked(0.001)
        yield release
        release.set()


async def pid(pool: Pool) -> int:
    async with pool.connection() as connection:
        return connection.info.backend_pid


async def test_connects_when_needed_and_uses_again(url: str, observer: Observer) -> None:
    """Nothing is opened before it is needed, and one at a time needs one."""
    async with Pool(url, size=3) as pool:
        assert pool.statistics.open == 0
        assert len({await pid(pool) for _ in range(5)}) == 1
        assert (pool.statistics.connects, pool.statistics.idle, pool.statistics.in_use) == (1, 1, 0)
        async with held(pool, 3):
            assert pool.statistics.in_use == 3
        assert (pool.statistics.connects, pool.statistics.idle) == (3, 3)
        assert observer.backends() == 3
    await observer.wait_backends(0)


async def test_last_in_first_out(url: str) -> None:
    """The connection that came back last is handed out first, so that the others can grow old."""
    async with Pool(url, size=2) as pool:
        async with held(pool, 1):
            later = await pid(pool)
        earlier = await pid(pool)
        assert earlier != later
        assert {await pid(pool) for _ in range(5)} == {earlier}


async def test_first_come_first_served(url: str) -> None:
    """Those who wait are served in the order they came, and nobody who comes later is before them."""
    served: list[int] = []

    async def ask(pool: Pool, number: int) -> None:
        async with pool.connection():
            served.append(number)
            await trio.lowlevel.checkpoint()

    async with Pool(url, size=1) as pool:
        async with trio.open_nursery() as nursery, held(pool, 1) as release:
            for number in range(10):
                nursery.start_soon(ask, pool, number)
                await trio.testing.wait_all_tasks_blocked()
            assert pool.statistics.waiting == 10
            release.set()
            await trio.lowlevel.checkpoint()
            nursery.start_soon(ask, pool, 10)
        assert served == list(range(11))
        assert pool.statistics.waiting == 0
        assert pool.statistics.waited_seconds > 0
        async with held(pool, 1):
            with pytest.raises(PoolTimeoutError):
                async with pool.connection(wait_seconds=0.0):
                    raise AssertionError("there is more than one")


async def test_canceled_before(url: str) -> None:
    """Nothing is lent to a task that is canceled."""
    async with Pool(url, size=1) as pool:
        assert await pid(pool)
        with trio.CancelScope() as scope:
            scope.cancel()
            async with pool.connection():
                raise AssertionError("lent")
        assert scope.cancelled_caught


async def test_waiting_has_a_deadline(url: str) -> None:
    """When none comes back in time there is a `PoolTimeoutError`, and the next one is served."""
    async with Pool(url, size=1, wait_seconds=0.02) as pool:
        async with held(pool, 1):
            with pytest.raises(PoolTimeoutError, match="1 of 1 are in use"):
                await pid(pool)
            with pytest.raises(PoolTimeoutError):
                async with pool.connection(wait_seconds=0.0):
                    pass
            assert pool.statistics.waiting == 0
        assert await pid(pool)


async def test_slow_connecting_is_waiting_too() -> None:
    """A server that does not answer is a `PoolTimeoutError`, and takes no place with it."""
    with silent_port() as port:
        async with Pool(f"host=127.0.0.1 port={port} user=x", size=1, wait_seconds=0.05) as pool:
            for _ in range(3):
                with pytest.raises(PoolTimeoutError):
                    await pid(pool)
            assert pool.statistics.open == 0


async def test_canceled_waiters_leave_nothing(url: str) -> None:
    """Those who are canceled while they wait, or while they connect, take no place with them."""
    async with Pool(url, size=2) as pool:
        for step in range(30):
            with trio.move_on_after(step * 0.0005):
                async with held(pool, 2):
                    await trio.sleep(0.005)
        async with held(pool, 2), trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(pid, pool)
            await trio.testing.wait_all_tasks_blocked()
            assert pool.statistics.waiting == 5
            nursery.cancel_scope.cancel()
        assert pool.statistics.waiting == 0
        async with held(pool, 2):
            assert pool.statistics.open == 2


async def test_failure_to_connect_takes_no_place(own_server: Server) -> None:
    """A server that is down fails at once, again and again; when it is back, the pool works."""
    async with Pool(own_server.url, size=1) as pool:
        before = await pid(pool)
        own_server.stop()
        for _ in range(3):
            began = trio.current_time()
            with pytest.raises(errors.OperationalError, match="refused"):
                await pid(pool)
            assert trio.current_time() - began < 1.0
        assert pool.statistics.failures == 3
        assert pool.statistics.open == 0
        own_server.start()
        assert await pid(pool) != before


async def test_restarted_server(own_server: Server) -> None:
    """Connections that a restart has broken while they were idle are replaced without anyone noticing."""
    async with Pool(own_server.url, size=3) as pool:
        async with held(pool, 3):
            pass
        own_server.restart()
        for _ in range(5):
            assert await pid(pool)
        assert pool.statistics.connects == 4
        assert pool.statistics.open == 1


async def test_broken_in_use(url: str, observer: Observer) -> None:
    """A connection that breaks in use raises there, and is replaced."""
    async with Pool(url, size=1) as pool:
        with pytest.raises(errors.AdminShutdown):  # noqa: PT012  all of it is needed
            async with pool.connection() as connection:
                observer.rows("SELECT pg_terminate_backend(%s, 10000)", connection.info.backend_pid)
                await connection.execute("SELECT 1")
        assert pool.statistics.open == 0
        assert await pid(pool)


async def test_last_words_while_idle(database: str, observer: Observer) -> None:
    """A connection that has been told its server ends is replaced, though it is not closed yet."""
    async with open_proxy(database) as proxy:
        proxy.end_kept_back = True
        async with Pool(proxy.url, size=1) as pool:
            async with pool.connection() as connection:
                before = connection.info.backend_pid
                descriptor = connection.fileno()
            observer.rows("SELECT pg_terminate_backend(%s, 10000)", before)
            await trio.lowlevel.wait_readable(descriptor)
            assert await pid(pool) != before


async def test_notifications_while_idle(url: str, observer: Observer) -> None:
    """Something to read is no reason to throw a connection away."""
    async with Pool(url, size=1, autocommit=True) as pool:
        async with pool.connection() as connection:
            before = connection.info.backend_pid
            descriptor = connection.fileno()
            await connection.execute("LISTEN idle")
        observer.rows("NOTIFY idle")
        await trio.lowlevel.wait_readable(descriptor)
        assert await pid(pool) == before


async def test_transaction_left_open(url: str, observer: Observer) -> None:
    """The end of the block commits what was left open, or rolls it back after an exception or a cancellation."""
    observer.rows("CREATE TABLE left_open (id int)")
    async with Pool(url, size=1) as pool:
        async with pool.connection() as connection:
            await connection.execute("INSERT INTO left_open VALUES (1)")
        with pytest.raises(KeyError):  # noqa: PT012  all of it is needed
            async with pool.connection() as connection:
                await connection.execute("INSERT INTO left_open VALUES (2)")
                raise KeyError
        with trio.CancelScope() as scope:
            async with pool.connection() as connection:
                await connection.execute("INSERT INTO left_open VALUES (3)")
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert pool.statistics.connects == 1
        with pytest.raises(errors.UniqueViolation):  # noqa: PT012  all of it is needed
            async with pool.connection() as connection:
                await connection.execute("ALTER TABLE left_open ADD UNIQUE (id) DEFERRABLE INITIALLY DEFERRED")
                await connection.execute("INSERT INTO left_open VALUES (1)")
        assert pool.statistics.connects == 1
    assert observer.rows("SELECT id FROM left_open") == [(1,)]


async def test_what_cannot_be_used_again_is_closed(url: str, observer: Observer) -> None:
    """A connection that comes back in a two-phase transaction, or closed, is not handed out again."""

    async def two_phase(connection: Connection[Any]) -> None:
        await connection.tpc_begin("from the pool")
        await connection.tpc_prepare()

    async def close(connection: Connection[Any]) -> None:
        await connection.close()

    async with Pool(url, size=1) as pool:
        for spoil in (two_phase, close):
            with suppress(errors.ProgrammingError):
                async with pool.connection() as connection:
                    before = connection.info.backend_pid
                    await spoil(connection)
            assert await pid(pool) != before
    observer.rows("ROLLBACK PREPARED 'from the pool'")


async def test_canceled_query(url: str) -> None:
    """A canceled query costs no connection."""
    async with Pool(url, size=1, autocommit=True) as pool:
        for _ in range(3):
            with trio.move_on_after(0.02) as scope:
                async with pool.connection() as connection:
                    await connection.execute("SELECT pg_sleep(10)")
            assert scope.cancelled_caught
        assert pool.statistics.connects == 1


async def test_greatest_age(url: str, autojump_clock: trio.testing.MockClock) -> None:
    """A connection is replaced when it is as old as it may get, less up to a fifth by chance."""
    autojump_clock.autojump_threshold = float("inf")
    chances = iter([0.0, 1.0, 0.0])
    async with Pool(url, size=1, max_age=100.0, max_idle=1000.0, chance=lambda: next(chances)) as pool:
        first = await pid(pool)
        autojump_clock.jump(99)
        assert await pid(pool) == first
        autojump_clock.jump(2)
        second = await pid(pool)
        assert second != first
        autojump_clock.jump(79)
        assert await pid(pool) == second
        async with pool.connection():
            autojump_clock.jump(2)
        assert pool.statistics.open == 0


async def test_longest_idleness(url: str, autojump_clock: trio.testing.MockClock) -> None:
    """Connections that nobody has needed for long are closed when others come and go."""
    autojump_clock.autojump_threshold = float("inf")
    async with Pool(url, size=3, max_idle=60.0) as pool:
        async with held(pool, 3):
            pass
        for _ in range(4):
            autojump_clock.jump(20)
            await pid(pool)
        assert pool.statistics.open == 1
        autojump_clock.jump(61)
        before = pool.statistics.connects
        await pid(pool)
        assert pool.statistics.connects == before + 1


async def test_configure(url: str) -> None:
    """Each new connection is configured once, before anybody else has it."""
    configured = []

    async def configure(connection: Connection[Any]) -> None:
        await connection.execute("SET application_name TO configured")
        configured.append(connection)

    async with Pool(url, size=1, autocommit=True, configure=configure) as pool:
        for _ in range(2):
            async with pool.connection() as connection:
                assert connection.info.parameter_status("application_name") == "configured"
        assert len(configured) == 1


async def test_configure_that_fails(url: str, observer: Observer) -> None:
    """Its error is raised, the connection closed, the place free; so if it leaves a transaction open."""

    async def fail(connection: Connection[Any]) -> None:
        await connection.execute("SELECT 1/0")

    async def leave_open(connection: Connection[Any]) -> None:
        await connection.execute("SELECT 1")

    for configure, error in [(fail, errors.DivisionByZero), (leave_open, errors.ProgrammingError)]:
        async with Pool(url, size=1, configure=configure) as pool:
            for _ in range(2):
                with pytest.raises(error):
                    await pid(pool)
            assert pool.statistics.open == 0
            assert pool.statistics.failures == 2
    await observer.wait_backends(0)


async def test_canceled_pool(url: str, observer: Observer) -> None:
    """A pool whose block is canceled closes its connections without grace."""
    with trio.CancelScope() as scope:
        async with Pool(url, size=2) as pool, held(pool, 2):
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert pool.statistics.open == 0
    await observer.wait_backends(0)


async def test_many_tasks(url: str, observer: Observer) -> None:
    """Hundreds of tasks on a few connections: never more than these, and all are served."""
    most = 0

    async def work(pool: Pool) -> None:
        nonlocal most
        async with pool.connection() as connection:
            most = max(most, observer.backends())
            await connection.execute("SELECT 1")

    async with Pool(url, size=4, autocommit=True) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(work, pool)
        assert pool.statistics.connects == most == 4


async def test_size() -> None:
    """A pool without connections is a mistake."""
    with pytest.raises(ValueError, match="at least one"):
        Pool(size=0)


async def test_refused_from_the_start() -> None:
    """What `connect` raises is raised."""
    async with Pool(f"host=127.0.0.1 port={free_port()} user=x", size=1) as pool:
        with pytest.raises(psycopg.OperationalError, match="refused"):
            await pid(pool)
