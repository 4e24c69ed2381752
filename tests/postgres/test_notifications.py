"""LISTEN and NOTIFY."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import trio
import trio.testing

from promptpipe.storage.postgres.driver import connection as connection_module
from tests.postgres.observer import assert_sound

if TYPE_CHECKING:
    import pytest

    from promptpipe.storage.postgres.driver import Connection
    from tests.postgres.observer import Observer

STORM = 20_000


async def test_notifications_arrive(connection: Connection, observer: Observer) -> None:
    """In order, with channel, payload and sender, while another session sends them."""
    await connection.execute("LISTEN arrive")
    sender = observer.value("SELECT pg_backend_pid()")
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            await trio.testing.wait_all_tasks_blocked()
            for number in range(5):
                observer.rows("SELECT pg_notify('arrive', %s)", str(number))

        nursery.start_soon(send)
        async with aclosing(connection.notifies()) as notifications:
            for number in range(5):
                assert await anext(notifications) == ("arrive", str(number), sender)
    await assert_sound(connection)


async def test_what_arrived_before(connection: Connection, observer: Observer) -> None:
    """What comes while something else is executed, or while the connection is looked at, is not lost."""
    await connection.execute("LISTEN before")
    observer.rows("NOTIFY before, 'one'")
    await connection.execute("SELECT 1")
    observer.rows("NOTIFY before, 'two'")
    await trio.lowlevel.wait_readable(connection.fileno())
    assert connection.usable()
    async with aclosing(connection.notifies()) as notifications:
        assert [(await anext(notifications)).payload for _ in range(2)] == ["one", "two"]


async def test_time_limit(connection: Connection, observer: Observer) -> None:
    """With a time limit it ends; with one of zero it returns what is there."""
    await connection.execute("LISTEN limit_")
    assert [note async for note in connection.notifies(timeout=0.05)] == []
    assert [note async for note in connection.notifies(timeout=0)] == []
    observer.rows("NOTIFY limit_, 'here'")
    await trio.lowlevel.wait_readable(connection.fileno())
    assert [note.payload async for note in connection.notifies(timeout=0)] == ["here"]
    assert [note async for note in connection.notifies(timeout=0)] == []
    await assert_sound(connection)


async def test_more_than_expected(connection: Connection, observer: Observer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that has too much to say is not usable; what it has said is not lost."""
    await connection.execute("LISTEN more")
    observer.rows("NOTIFY more")
    await trio.lowlevel.wait_readable(connection.fileno())
    monkeypatch.setattr(connection_module, "MAX_READS_WHEN_IDLE", 1)
    assert not connection.usable()
    assert len([note async for note in connection.notifies(timeout=0)]) == 1


async def test_looking_on_while_listening(connection: Connection) -> None:
    """A connection on which somebody listens is not usable by anybody else."""
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            async with aclosing(connection.notifies()) as notifications:
                await anext(notifications)

        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        assert not connection.usable()
        nursery.cancel_scope.cancel()
    await assert_sound(connection)


async def test_stop_after(connection: Connection, observer: Observer) -> None:
    """It ends after as many as were asked for."""
    await connection.execute("LISTEN stop")
    observer.rows("NOTIFY stop")
    assert len([note async for note in connection.notifies(stop_after=1)]) == 1


async def test_canceled(connection: Connection) -> None:
    """A listener is canceled like anything else; its connection goes on listening."""
    await connection.execute("LISTEN canceled")
    with trio.move_on_after(0.02) as scope:
        async with aclosing(connection.notifies()) as notifications:
            await anext(notifications)
    assert scope.cancelled_caught
    await assert_sound(connection)
    await connection.execute("NOTIFY canceled")
    assert len([note async for note in connection.notifies(timeout=1, stop_after=1)]) == 1


async def test_storm(connection: Connection, observer: Observer) -> None:
    """Thousands at once all arrive, in order, and other tasks have their turns meanwhile."""
    await connection.execute("LISTEN storm")
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            await trio.to_thread.run_sync(
                observer.rows, "SELECT pg_notify('storm', n::text) FROM generate_series(1, %s) AS n", STORM
            )

        nursery.start_soon(send)
        longest = 0.0

        async def watch() -> None:
            nonlocal longest
            while True:
                before = trio.current_time()
                await trio.lowlevel.checkpoint()
                longest = max(longest, trio.current_time() - before)

        nursery.start_soon(watch)
        async with aclosing(connection.notifies()) as notifications:
            for number in range(1, STORM + 1):
                assert (await anext(notifications)).payload == str(number)
        nursery.cancel_scope.cancel()
    assert longest < 1.0
