"""A cancel scope around anything: it returns soon, the server stops working, and the connection goes on."""

from __future__ import annotations

import itertools
import os
import signal
from contextlib import aclosing, nullcontext
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from promptpipe.storage.postgres.driver import Connection, cancellation
from tests.postgres.observer import Observer, assert_sound, canceled_when_running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


ENDLESS = "SELECT generate_series(1, 1000000000), repeat('x', 1000)"


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
    for _ in range(2):
        await connection.execute("SELECT * FROM changed", prepare=True)


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
