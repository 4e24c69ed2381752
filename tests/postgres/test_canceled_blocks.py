"""Blocks that are canceled: what has ended normally stays, and the rest leaves nothing behind."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from psycopg import errors

from promptpipe.storage.postgres.driver import Connection
from tests.postgres.observer import Observer, assert_sound, canceled_when_running


async def test_transaction(connection: Connection, observer: Observer, table: str) -> None:
    """A transaction canceled in a statement, with a savepoint open, is rolled back."""
    async with canceled_when_running(observer), connection.transaction():
        await connection.execute("INSERT INTO canceled VALUES (1)")
        async with connection.transaction():
            await connection.execute("SELECT pg_sleep(10)")
    assert observer.rows(f"SELECT id FROM {table}") == []
    await assert_sound(connection)


async def test_transaction_elsewhere(connection: Connection, observer: Observer, table: str) -> None:
    """A transaction canceled between its statements is rolled back, though its ROLLBACK is sent under cancellation."""
    with trio.CancelScope() as scope:
        async with connection.transaction():
            await connection.execute("INSERT INTO canceled VALUES (1)")
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert observer.rows(f"SELECT id FROM {table}") == []
    await assert_sound(connection)


@pytest.mark.parametrize("pipelined", [False, True])
async def test_transaction_at_its_end(connection: Connection, observer: Observer, table: str, pipelined: bool) -> None:
    """A body that ended normally is committed though canceled; at least, what is left without an exception is."""
    left_normally = False
    with trio.CancelScope() as scope:
        async with connection.transaction():
            await connection.execute(f"INSERT INTO {table} VALUES (1)")
            if pipelined:
                async with connection.pipeline():
                    await connection.execute(f"INSERT INTO {table} VALUES (2)")
            scope.cancel()
        left_normally = True
    assert left_normally
    assert observer.value(f"SELECT count(*) FROM {table}") == (2 if pipelined else 1)
    await assert_sound(connection)


async def test_transaction_in_a_pipeline_at_its_end(connection: Connection, observer: Observer, table: str) -> None:
    """In a pipeline, a block left without an exception has committed, and one left by a cancellation has not."""
    outcomes = set()
    for number in range(20):
        left_normally = False
        with trio.CancelScope() as scope:
            async with connection.pipeline(), connection.transaction():
                await connection.execute(f"INSERT INTO {table} VALUES ({number})")
                if number % 2:
                    await connection.execute("SELECT pg_sleep(0.001)")
                scope.cancel()
            left_normally = True
        found = observer.value(f"SELECT count(*) FROM {table} WHERE id = %s", number)
        assert found == left_normally
        outcomes.add(left_normally)
        await assert_sound(connection)
    assert outcomes


async def test_copy_at_its_end(connection: Connection, observer: Observer, table: str) -> None:
    """A COPY that has been given all its rows is finished though canceled."""
    with trio.CancelScope() as scope:
        async with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
            await copy.write("1\n")
            scope.cancel()
    assert observer.rows(f"SELECT id FROM {table}") == [(1,)]
    await assert_sound(connection)


async def test_copy_while_writing(
    connection: Connection, observer: Observer, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One that is canceled before is not finished, and nobody is warned that it cannot be."""
    with trio.CancelScope() as scope:
        async with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
            scope.cancel()
            await copy.write("1\n" * 1_000_000)
    assert scope.cancelled_caught
    assert observer.rows(f"SELECT id FROM {table}") == []
    assert caplog.text == ""
    await assert_sound(connection)


async def test_explicit_commit_and_rollback(url: str, observer: Observer, table: str) -> None:
    """`commit` and `rollback` do their work though canceled."""
    async with await Connection.connect(url) as connection:
        for end in (connection.rollback, connection.commit):
            await connection.execute("INSERT INTO canceled VALUES (1)")
            with trio.CancelScope() as scope:
                scope.cancel()
                await end()
            assert connection.usable()
    assert observer.rows(f"SELECT id FROM {table}") == [(1,)]


async def test_two_phases(url: str, observer: Observer, table: str) -> None:
    """So do the phases of a two-phase commit."""
    async with await Connection.connect(url) as connection:
        with trio.CancelScope() as scope:
            scope.cancel()
            await connection.tpc_begin("canceled phases")
        await connection.execute("INSERT INTO canceled VALUES (1)")
        for phase in (connection.tpc_prepare, connection.tpc_commit):
            with trio.CancelScope() as scope:
                scope.cancel()
                await phase()
            assert not scope.cancelled_caught
        assert connection.usable()
    assert observer.rows(f"SELECT id FROM {table}") == [(1,)]


async def test_connection_block(url: str, observer: Observer, table: str) -> None:
    """A connection whose block is canceled rolls back and is closed."""
    with trio.CancelScope() as scope:
        async with await Connection.connect(url) as connection:
            await connection.execute("INSERT INTO canceled VALUES (1)")
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert connection.closed
    assert not connection.broken
    assert observer.rows(f"SELECT id FROM {table}") == []


async def test_block_that_cannot_be_ended(connection: Connection, caplog: pytest.LogCaptureFixture) -> None:
    """A transaction that is canceled while another task uses its connection closes it: nobody inherits it."""
    async with trio.open_nursery() as nursery:

        async def intrude() -> None:
            with pytest.raises(errors.OperationalError):
                await connection.execute("SELECT pg_sleep(10)")

        with trio.CancelScope() as scope:
            async with connection.transaction():
                nursery.start_soon(intrude)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert connection.closed
    assert "could not be ended" in caplog.text
