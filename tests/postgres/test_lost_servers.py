"""Servers that go away, with and without a word."""

from __future__ import annotations

import signal
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from psycopg import errors

from promptpipe.storage.postgres.driver import Connection
from tests.postgres.proxy import open_proxy

if TYPE_CHECKING:
    from tests.postgres.observer import Observer
    from tests.support.postgres import Server


async def test_terminated_while_waiting(connection: Connection, observer: Observer) -> None:
    """A query whose backend is terminated raises what the server gave as its reason; the connection is closed."""
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(errors.AdminShutdown):
                await connection.execute("SELECT pg_sleep(10)")

        nursery.start_soon(wait)
        await observer.wait_running()
        observer.rows("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
    assert connection.closed
    assert connection.broken
    assert not connection.usable()


async def test_terminated_while_idle(connection: Connection, observer: Observer) -> None:
    """One that is terminated while nobody uses it is not usable, without asking."""
    assert connection.usable()
    observer.rows("SELECT pg_terminate_backend(%s, 10000)", connection.info.backend_pid)
    assert not connection.usable()
    with pytest.raises(errors.OperationalError):
        await connection.execute("SELECT 1")


async def test_last_words_without_the_end(database: str, observer: Observer) -> None:
    """The server's last words are enough: the end of the connection may come later."""
    async with open_proxy(database) as proxy:
        proxy.end_kept_back = True
        connection = await Connection.connect(proxy.url, autocommit=True)
        observer.rows("SELECT pg_terminate_backend(%s, 10000)", connection.info.backend_pid)
        await trio.lowlevel.wait_readable(connection.fileno())
        assert not connection.usable()
        assert not connection.closed
        await connection.close()


async def test_terminated_in_a_transaction(connection: Connection, observer: Observer) -> None:
    """A transaction that loses its server raises, and so does what encloses it."""
    with pytest.raises(errors.AdminShutdown):  # noqa: PT012  all of it is needed
        async with connection.transaction():
            await connection.execute("SELECT 1")
            observer.rows("SELECT pg_terminate_backend(%s, 10000)", connection.info.backend_pid)
            await connection.execute("SELECT 1")
    assert connection.closed


async def test_listener_that_loses_its_server(own_server: Server) -> None:
    """A task that waits for notifications learns that none will come."""
    async with await Connection.connect(own_server.url, autocommit=True) as connection:
        await connection.execute("LISTEN anything")
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                with pytest.raises(errors.OperationalError):  # noqa: PT012  all of it is needed
                    async with aclosing(connection.notifies()) as notifications:
                        async for _ in notifications:
                            raise AssertionError("nobody has notified")

            nursery.start_soon(listen)
            await trio.testing.wait_all_tasks_blocked()
            own_server.kill()
        assert connection.closed


async def test_commit_that_waits_for_a_standby_is_not_canceled(own_server: Server) -> None:
    """In a pipeline neither: the server would call it done, though it is nowhere else. The connection is closed."""
    async with await Connection.connect(own_server.url, autocommit=True) as connection:
        await connection.execute("CREATE TABLE replicated (id int)")
    own_server.settings |= {"synchronous_commit": "on", "synchronous_standby_names": "*"}
    own_server.restart(signal.SIGINT)
    async with await Connection.connect(own_server.url, autocommit=True) as connection:
        connection.cleanup_seconds = 0.5
        with trio.move_on_after(0.1) as scope:
            async with connection.pipeline(), connection.transaction():
                await connection.execute("INSERT INTO replicated VALUES (%s)", [1])
        assert scope.cancelled_caught
        assert connection.closed
    async with await Connection.connect(own_server.url, autocommit=True) as other:
        assert await (await other.execute("SELECT count(*) FROM replicated")).fetchone() == (0,)


async def test_killed_server(own_server: Server) -> None:
    """After `kill -9` a query fails, connecting is refused, and the restarted server is found."""
    async with await Connection.connect(own_server.url, autocommit=True) as connection:
        own_server.kill()
        with pytest.raises(errors.OperationalError):
            await connection.execute("SELECT 1")
    with pytest.raises(errors.OperationalError, match="refused"):
        await Connection.connect(own_server.url)
    own_server.start()
    async with await Connection.connect(own_server.url, autocommit=True) as connection:
        assert await (await connection.execute("SELECT 1")).fetchone() == (1,)


async def test_silent_server(database: str) -> None:
    """A server that falls silent keeps neither a query nor a transaction for longer than `cleanup_seconds`."""
    async with open_proxy(database) as proxy:
        connection = await Connection.connect(proxy.url, autocommit=True)
        connection.cleanup_seconds = 0.2
        began = trio.current_time()
        with trio.CancelScope() as scope:
            async with connection.transaction():
                proxy.silent = True
                scope.deadline = began + 0.1
                await connection.execute("SELECT 1")
        assert scope.cancelled_caught
        assert trio.current_time() - began < 3.0
        assert connection.closed
