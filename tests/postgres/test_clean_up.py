"""What comes after a cancellation when the server does not do its part, and interruptions that are none of Trio's."""

from __future__ import annotations

import os
import signal
from time import monotonic

import pytest
import trio
import trio.testing
from psycopg import errors

from promptpipe.storage.postgres.driver import Connection
from tests.postgres.observer import SOON, Observer, assert_sound, canceled_when_running


async def test_request_that_the_server_forgets(nearby: Connection) -> None:
    """A cancel request that comes before the server has looked at the query is repeated."""
    backend = nearby.info.backend_pid
    os.kill(backend, signal.SIGSTOP)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:

            async def cancel() -> None:
                await trio.testing.wait_all_tasks_blocked()  # the query is sent
                scope.cancel()
                await trio.sleep(0.04)  # so is the first request, which the sleeper will look at first
                os.kill(backend, signal.SIGCONT)

            nursery.start_soon(cancel)
            await nearby.execute("SELECT pg_sleep(10)")
        assert scope.cancelled_caught
    assert trio.current_time() - began < SOON
    await assert_sound(nearby)


async def test_timed_out_clean_up(
    nearby: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When the server does not end the query, the connection is closed after `cleanup_seconds` and a few requests."""
    monkeypatch.setattr(nearby, "cleanup_seconds", 0.5)
    requests = 0
    send_request = nearby._request_cancel

    async def count() -> None:
        nonlocal requests
        requests += 1
        await send_request()

    monkeypatch.setattr(nearby, "_request_cancel", count)
    backend = nearby.info.backend_pid
    try:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:

                async def cancel() -> None:
                    await trio.testing.wait_all_tasks_blocked(0.1)
                    os.kill(backend, signal.SIGSTOP)
                    scope.cancel()

                nursery.start_soon(cancel)
                await nearby.execute("SELECT pg_sleep(10)")
            assert scope.cancelled_caught
    finally:
        os.kill(backend, signal.SIGCONT)
    assert nearby.closed
    assert "did not end" in caplog.text
    assert 2 <= requests <= 4


async def test_timed_out_rollback(
    nearby: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When the server does not answer a ROLLBACK either, the connection is closed."""
    monkeypatch.setattr(nearby, "cleanup_seconds", 0.2)
    backend = nearby.info.backend_pid
    try:
        began = trio.current_time()
        with trio.CancelScope() as scope:
            async with nearby.transaction():
                await nearby.execute("SELECT 1")
                os.kill(backend, signal.SIGSTOP)
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert trio.current_time() - began < 2.0
    finally:
        os.kill(backend, signal.SIGCONT)
    assert nearby.closed
    assert "did not come" in caplog.text


async def test_request_that_fails(
    connection: Connection, observer: Observer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that cannot be asked leaves nothing to do but to close; whoever asked for another task is told."""

    async def fail() -> None:
        raise errors.OperationalError("nobody there")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.execute, "SELECT pg_sleep(0.1)")
        await observer.wait_running()
        with monkeypatch.context() as patch:
            patch.setattr(connection, "_request_cancel", fail)
            with pytest.raises(errors.OperationalError, match="nobody there"):
                await connection.cancel_safe()
    await assert_sound(connection)
    monkeypatch.setattr(connection, "_request_cancel", fail)
    async with canceled_when_running(observer):
        await connection.execute("SELECT pg_sleep(10)")
    assert connection.closed
    assert "nobody there" in caplog.text


async def test_cancel_from_another_task(connection: Connection, observer: Observer) -> None:
    """`cancel_safe` fails the other task's query with `QueryCanceled`."""
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(errors.QueryCanceled):
                await connection.execute("SELECT pg_sleep(10)")

        nursery.start_soon(wait)
        await observer.wait_running()
        await connection.cancel_safe()
    await assert_sound(connection)


def test_keyboard_interrupt(local_url: str) -> None:
    """Ctrl-C cancels the query, and the connection can still be used by whoever cleans up."""

    async def main() -> None:
        async with await Connection.connect(local_url, autocommit=True) as connection:
            try:
                async with connection.transaction():
                    trio.lowlevel.current_trio_token().run_sync_soon(signal.raise_signal, signal.SIGINT)
                    await connection.execute("SELECT pg_sleep(10)")
            finally:
                await assert_sound(connection)  # noqa: ASYNC102  not canceled: interrupted

    began = monotonic()
    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert monotonic() - began < SOON


def test_keyboard_interrupt_in_a_callback(local_url: str) -> None:
    """Ctrl-C while libpq calls back is not lost in it."""

    async def main() -> None:
        async with await Connection.connect(local_url, autocommit=True) as connection:
            connection.add_notice_handler(lambda _: signal.raise_signal(signal.SIGINT))
            try:
                await connection.execute("DO $$ BEGIN RAISE NOTICE 'now'; PERFORM pg_sleep(10); END $$")
            finally:
                await assert_sound(connection)  # noqa: ASYNC102  not canceled: interrupted

    began = monotonic()
    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert monotonic() - began < SOON
