"""A cancel scope around anything: it returns soon, the server stops working, and the connection goes on."""

from __future__ import annotations

import itertools
import os
import signal
from contextlib import aclosing, asynccontextmanager, nullcontext
from time import monotonic
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from psycopg import errors

from promptpipe.storage.postgres.driver import Connection, cancellation
from tests.postgres.observer import Observer, assert_sound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator


SOON = 1.0
"""Ten times what is promised."""

ENDLESS = "SELECT generate_series(1, 1000000000), repeat('x', 1000)"


@pytest.fixture
def table(observer: Observer) -> Iterator[str]:
    """Give an empty table that others see too."""
    observer.rows("CREATE TABLE canceled (id int)")
    yield "canceled"
    observer.rows("DROP TABLE canceled")


@asynccontextmanager
async def canceled_when_running(observer: Observer) -> AsyncIterator[None]:
    """Cancel the body as soon as the server is busy with it; it must end soon after, canceled."""
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:  # noqa: ASYNC100  the body has them
            at = 0.0

            async def cancel() -> None:
                nonlocal at
                await observer.wait_running()
                at = trio.current_time()
                scope.cancel()

            nursery.start_soon(cancel)
            yield
        assert scope.cancelled_caught
        assert trio.current_time() - at < SOON


async def test_query(connection: Connection, observer: Observer) -> None:
    """A query is canceled in the server and gone from its list."""
    async with canceled_when_running(observer):
        await connection.execute("SELECT pg_sleep(10)")
    assert observer.running() == 0
    await assert_sound(connection)


async def test_query_with_a_deadline(connection: Connection) -> None:
    """`move_on_after` is all it takes."""
    with trio.move_on_after(0.05) as scope:
        await connection.execute("SELECT pg_sleep(10)")
    assert scope.cancelled_caught
    await assert_sound(connection)


async def test_query_that_waits_for_a_lock(connection: Connection, observer: Observer, table: str) -> None:
    """A query that the server has made wait is canceled as well."""
    observer.rows("BEGIN")
    observer.rows(f"LOCK TABLE {table}")
    with trio.move_on_after(0.05) as scope:
        await connection.execute("SELECT * FROM canceled")
    observer.rows("ROLLBACK")
    assert scope.cancelled_caught
    await assert_sound(connection)


async def test_query_with_endless_rows(connection: Connection, observer: Observer) -> None:
    """Rows that are on their way are thrown away."""
    async with canceled_when_running(observer):
        await connection.execute(ENDLESS)
    await assert_sound(connection)


async def test_what_is_canceled_before_it_begins_is_not_sent(
    connection: Connection, observer: Observer, table: str
) -> None:
    """Neither a statement nor a transaction's."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await connection.execute("INSERT INTO canceled VALUES (1)")
    assert scope.cancelled_caught
    with trio.CancelScope() as scope:
        scope.cancel()
        async with connection.transaction():
            await connection.execute("INSERT INTO canceled VALUES (2)")
    assert scope.cancelled_caught
    assert observer.rows(f"SELECT id FROM {table}") == []
    await assert_sound(connection)


async def test_the_first_request_is_sent_at_once(
    connection: Connection, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is asked as soon as a query is canceled: alone, first in a transaction, in a pipeline."""
    monkeypatch.setattr(cancellation, "ASK_AGAIN_SECONDS", 60.0)
    for around in (nullcontext, connection.transaction, connection.pipeline):
        async with canceled_when_running(observer), around():
            cursor = await connection.execute("SELECT pg_sleep(%s)", [10.0])
            await cursor.fetchone()
        await assert_sound(connection)


async def test_what_is_canceled_before_it_begins_is_not_sent_in_a_pipeline(
    connection: Connection, observer: Observer, table: str
) -> None:
    """Nor does a statement join those that a pipeline has sent already."""
    with trio.CancelScope() as scope:
        async with connection.pipeline():
            await connection.execute("INSERT INTO canceled VALUES (1)")
            scope.cancel()
            await connection.execute("INSERT INTO canceled VALUES (2)")
    assert scope.cancelled_caught
    assert (2,) not in observer.rows(f"SELECT id FROM {table}")
    await assert_sound(connection)


@pytest.mark.usefixtures("table")
async def test_half_sent_query(connection: Connection, observer: Observer) -> None:
    """A query canceled while its parameters are being sent ends soon too, though the server had not read it yet."""
    began = trio.current_time()
    with trio.move_on_after(0.02) as scope:
        await connection.execute("SELECT pg_sleep(10), length(%s)", ["x" * 30_000_000])
    assert scope.cancelled_caught
    assert trio.current_time() - began < 4.0
    assert observer.running() == 0
    await assert_sound(connection)


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


async def test_nothing_more_is_sent_after_cancellation(local_url: str) -> None:
    """Canceled at the BEGIN that psycopg sends by itself, the statement that would follow does not run."""
    with Observer.open(local_url) as observer:
        observer.rows("CREATE TABLE never_sent (id int)")
    async with await Connection.connect(local_url) as connection:
        backend = connection.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:

                async def cancel() -> None:
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
                    await trio.testing.wait_all_tasks_blocked(0.01)
                    os.kill(backend, signal.SIGCONT)

                nursery.start_soon(cancel)
                await connection.execute("INSERT INTO never_sent VALUES (1)")
        assert scope.cancelled_caught
        assert await (await connection.execute("SELECT count(*) FROM never_sent")).fetchone() == (0,)
        await connection.commit()
        assert connection.usable()


async def test_statement_cache_survives(connection: Connection, observer: Observer) -> None:
    """Statements prepared before a cancellation work after it."""
    query = "SELECT pg_sleep(%s::float8)"
    for _ in range(8):
        await connection.execute(query, [0.0])
    async with canceled_when_running(observer):
        await connection.execute(query, [10.0])
    for _ in range(8):
        await connection.execute(query, [0.0])
    await assert_sound(connection)


async def test_statement_that_took_effect(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the request comes too late, what the statement did to prepared ones is taken into account."""
    await connection.execute("CREATE TEMP TABLE changed (a int)")
    await connection.execute("SELECT * FROM changed", prepare=True)

    async def come_too_late() -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(connection, "_request_cancel", come_too_late)
    with trio.move_on_after(0.02) as scope:
        await connection.execute("ALTER TABLE changed ADD b int; SELECT pg_sleep(0.1)")
    assert scope.cancelled_caught
    assert connection.usable()
    await connection.execute("SELECT * FROM changed", prepare=True)


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


async def pipeline_with_fetch(connection: Connection) -> None:
    async with connection.pipeline():
        await connection.execute("SELECT 1")
        await connection.execute("SELECT pg_sleep(10)")
        await (await connection.execute("SELECT 2")).fetchone()


async def pipeline_at_its_end(connection: Connection) -> None:
    async with connection.pipeline():
        await connection.execute("SELECT pg_sleep(10)")


async def pipeline_with_several_long_queries(connection: Connection) -> None:
    async with connection.pipeline() as pipeline:
        for _ in range(3):
            await connection.execute("SELECT pg_sleep(10)")
            async with connection.transaction():
                await connection.execute("SELECT pg_sleep(10)")
        await pipeline.sync()


async def pipeline_with_transaction(connection: Connection) -> None:
    async with connection.pipeline(), connection.transaction():
        await connection.execute("INSERT INTO canceled VALUES (1)")
        await connection.execute("SELECT pg_sleep(10)")
        await trio.sleep_forever()


async def batch(connection: Connection) -> None:
    await connection.cursor().executemany(
        "INSERT INTO canceled SELECT %s FROM pg_sleep(0.01)", [(number,) for number in range(1000)]
    )


async def batch_with_results(connection: Connection) -> None:
    await connection.cursor().executemany("SELECT %s, pg_sleep(0.01)", [(n,) for n in range(1000)], returning=True)


async def endless_batch(connection: Connection) -> None:
    await connection.cursor().executemany("SELECT %s::int, pg_sleep(0.001)", ((n,) for n in itertools.count()))


async def copy_in(connection: Connection) -> None:
    async with connection.cursor().copy("COPY canceled FROM STDIN") as copy:
        for number in itertools.count():
            await copy.write_row((number,))


async def copy_in_waiting(connection: Connection) -> None:
    async with connection.cursor().copy("COPY canceled FROM STDIN") as copy:
        await copy.write_row((1,))
        await trio.sleep_forever()


async def copy_in_at_its_end(connection: Connection) -> None:
    with trio.CancelScope() as scope:
        async with connection.cursor().copy("COPY canceled FROM STDIN") as copy:
            await copy.write_row((1,))
            scope.cancel()
    assert scope.cancelled_caught
    await assert_sound(connection)
    await connection.execute("SELECT pg_sleep(10)")


async def copy_out(connection: Connection) -> None:
    async with connection.cursor().copy(f"COPY ({ENDLESS}) TO STDOUT") as copy:
        async for _ in copy:
            pass


async def copy_out_waiting(connection: Connection) -> None:
    async with connection.cursor().copy(f"COPY ({ENDLESS}) TO STDOUT") as copy:
        await copy.read()
        await trio.sleep_forever()


async def copy_out_that_has_not_begun(connection: Connection) -> None:
    async with connection.cursor().copy("COPY (SELECT pg_sleep(10)) TO STDOUT") as copy:
        await copy.read()


async def stream(connection: Connection) -> None:
    async with aclosing(connection.cursor().stream(ENDLESS)) as rows:  # type: ignore[type-var]  # it is a generator
        async for _ in rows:
            pass


async def stream_waiting(connection: Connection) -> None:
    async with aclosing(connection.cursor().stream(ENDLESS)) as rows:  # type: ignore[type-var]  # it is a generator
        async for _ in rows:
            await trio.sleep_forever()


async def server_cursor(connection: Connection) -> None:
    async with connection.transaction(), connection.cursor("slow") as cursor:
        await cursor.execute("SELECT pg_sleep(1) FROM generate_series(1, 10)")
        await cursor.fetchall()


@pytest.mark.parametrize(
    "work",
    [
        pipeline_with_fetch,
        pipeline_at_its_end,
        pipeline_with_several_long_queries,
        pipeline_with_transaction,
        batch,
        batch_with_results,
        endless_batch,
        copy_in,
        copy_in_waiting,
        copy_in_at_its_end,
        copy_out,
        copy_out_waiting,
        copy_out_that_has_not_begun,
        stream,
        stream_waiting,
        server_cursor,
    ],
)
async def test_anything(
    connection: Connection,
    observer: Observer,
    table: str,
    caplog: pytest.LogCaptureFixture,
    work: Callable[[Connection], Awaitable[None]],
) -> None:
    """Whatever is running is canceled, nothing of a transaction or a COPY remains, and nobody is warned of anything."""
    async with canceled_when_running(observer):
        await work(connection)
    assert observer.running() == 0
    if work is not batch:
        assert observer.rows(f"SELECT id FROM {table}") == []
    assert caplog.text == ""
    await assert_sound(connection)


async def test_one_of_two_tasks(connection: Connection) -> None:
    """The task that is canceled frees the connection for those that wait for it."""
    answers = []

    async def ask() -> None:
        answers.append(await (await connection.execute("SELECT 7")).fetchone())

    async def wait() -> None:
        with trio.move_on_after(0.05):
            await connection.execute("SELECT pg_sleep(10)")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask)
        nursery.start_soon(ask)
    assert answers == [(7,), (7,)]
    await assert_sound(connection)


async def test_task_that_waits_for_its_turn(connection: Connection) -> None:
    """One that is canceled before its turn has come leaves nothing behind."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.execute, "SELECT pg_sleep(0.1)")
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.01) as scope:
            await connection.execute("SELECT 1")
        assert scope.cancelled_caught
    await assert_sound(connection)


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
