"""Cancellation at any moment of any operation, thousands of times."""

from __future__ import annotations

import random
from contextlib import aclosing
from typing import TYPE_CHECKING

import psycopg
import pytest
import trio
from psycopg import errors

from promptpipe.storage.postgres.driver import Connection, Pool, cancellation
from tests.postgres.observer import assert_sound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Any, TypeAlias

    from tests.postgres.observer import Observer

    Operation: TypeAlias = Callable[[Connection[Any]], Awaitable[None]]

LONGEST_SECONDS = 0.006
LARGE = "x" * 3_000_000


async def one_query(connection: Connection) -> None:
    await connection.execute("SELECT 1")


async def prepared_query(connection: Connection) -> None:
    await connection.execute("SELECT %s::int", [1], prepare=True)


async def sleep(connection: Connection) -> None:
    await connection.execute("SELECT pg_sleep(0.002)")


async def large_query(connection: Connection) -> None:
    await connection.execute("SELECT length(%s), repeat('y', 3000000)", [LARGE])


async def savepoints(connection: Connection) -> None:
    async with connection.transaction():
        await connection.execute("INSERT INTO fuzz VALUES (1, 'a') ON CONFLICT DO NOTHING")
        async with connection.transaction():
            await connection.execute("SELECT count(*) FROM generate_series(1, 2000)")
        raise psycopg.Rollback


async def batch(connection: Connection) -> None:
    rows = [(number,) for number in range(60)]
    await connection.cursor().executemany("INSERT INTO fuzz VALUES (%s, 'q') ON CONFLICT DO NOTHING", rows)


async def batch_with_results(connection: Connection) -> None:
    await connection.cursor().executemany("SELECT %s::int", [(number,) for number in range(60)], returning=True)


async def pipeline(connection: Connection) -> None:
    async with connection.pipeline():
        for number in range(20):
            cursor = await connection.execute("SELECT %s::int", [number])
        await cursor.fetchone()


async def pipelined_transaction(connection: Connection) -> None:
    async with connection.pipeline() as pipelined, connection.transaction():
        for number in range(10):
            await connection.execute("INSERT INTO fuzz VALUES (%s, 'p') ON CONFLICT DO NOTHING", [number])
        await pipelined.sync()
        await connection.execute("SELECT pg_sleep(0.001)")


async def transaction(connection: Connection) -> None:
    async with connection.transaction():
        await connection.execute("SELECT v FROM fuzz WHERE id = %s FOR UPDATE", [1])
        await connection.execute("INSERT INTO fuzz VALUES (%s, 't') ON CONFLICT DO NOTHING", [1])


async def store_transaction(connection: Connection) -> None:
    async with connection.pipeline(), connection.transaction():
        await (await connection.ask("SELECT v FROM fuzz WHERE id = %(id)s FOR UPDATE", {"id": 1})).rows()
        for number in range(3):
            await connection.ask("UPDATE fuzz SET v = 's' WHERE id = %(id)s", {"id": number})


async def asked_pipeline(connection: Connection) -> None:
    async with connection.pipeline():
        answers = [await connection.ask("SELECT %(n)s::int AS n", {"n": number}) for number in range(20)]
        for number, answer in enumerate(answers):
            assert await answer.rows() == [{"n": number}]


async def large_pipeline(connection: Connection) -> None:
    async with connection.pipeline():
        for _ in range(3):
            await connection.execute("SELECT length(%s), repeat('y', 1000000)", [LARGE[:1_000_000]])


async def copy_out(connection: Connection) -> None:
    async with connection.cursor().copy("COPY (SELECT generate_series(1, 3000)) TO STDOUT") as copy:
        async for _ in copy:
            pass


async def copy_in(connection: Connection) -> None:
    async with (
        connection.transaction(force_rollback=True),
        connection.cursor().copy("COPY fuzz FROM STDIN") as copy,
    ):
        for number in range(1000, 1200):
            await copy.write_row((number, "z" * 50))


async def stream(connection: Connection) -> None:
    async with aclosing(connection.cursor().stream("SELECT generate_series(1, 500)")) as rows:  # type: ignore[type-var]  # it is a generator
        async for _ in rows:
            pass


async def server_cursor(connection: Connection) -> None:
    async with connection.transaction(), connection.cursor("fuzz") as cursor:
        await cursor.execute("SELECT generate_series(1, 300)")
        async for _ in cursor:
            pass


async def failing_query(connection: Connection) -> None:
    with pytest.raises(errors.DivisionByZero):
        await connection.execute("SELECT 1 / (random() < 0)::int")


OPERATIONS: Sequence[Operation] = [
    one_query,
    prepared_query,
    sleep,
    large_query,
    savepoints,
    batch,
    batch_with_results,
    pipeline,
    pipelined_transaction,
    transaction,
    store_transaction,
    asked_pipeline,
    large_pipeline,
    copy_out,
    copy_in,
    stream,
    server_cursor,
    failing_query,
]

REPEATED = [pipelined_transaction, transaction, store_transaction, pipeline, asked_pipeline, batch, savepoints]
"""Those whose blocks end with a statement that a late cancel request might hit."""


@pytest.fixture
async def fuzzed(url: str, observer: Observer) -> str:
    """Give a database with the table that the operations use."""
    observer.rows("CREATE TABLE IF NOT EXISTS fuzz (id int PRIMARY KEY, v text)")
    return url


async def check(
    url: str, observer: Observer, *, rounds: int, seed: int, operations: Sequence[Operation] = OPERATIONS
) -> None:
    """Cancel operations at random; no connection is lost or left unusable, no cancel request hits what comes after.

    Where operations are over before their time is, there are more than *rounds*, until a tenth of these was canceled.
    """
    chance = random.Random(seed)
    number = canceled = 0
    async with await Connection.connect(url, autocommit=True) as connection:
        while number < rounds or canceled < rounds / 10:
            number += 1
            operation = chance.choice(operations)
            with trio.move_on_after(chance.random() ** 2 * LONGEST_SECONDS) as scope:
                await operation(connection)
            canceled += scope.cancelled_caught
            assert not connection.closed, f"closed after {number} operations, by {operation.__name__}"
            try:
                await assert_sound(connection)  # a stray request would cancel this
            except BaseException as error:
                error.add_note(f"after {number} operations, by {operation.__name__}")
                raise
        assert observer.backends() == 1
    await observer.wait_backends(0)


async def check_pool(url: str, observer: Observer, *, rounds: int, seed: int) -> None:
    """Do the same with many tasks on a few connections."""
    chance = random.Random(seed)
    canceled = 0

    async def work(pool: Pool) -> None:
        nonlocal canceled
        for _ in range(rounds // 10):
            operation = chance.choice(OPERATIONS)
            with trio.move_on_after(chance.random() ** 2 * LONGEST_SECONDS * 4) as scope:
                async with pool.connection() as connection:
                    await operation(connection)
            canceled += scope.cancelled_caught

    async with Pool(url, size=4, autocommit=True) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(work, pool)
        statistics = pool.statistics
        assert (statistics.in_use, statistics.waiting, statistics.failures) == (0, 0, 0)
        assert statistics.connects <= 4 + rounds // 20  # only attempts to connect may have been canceled
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(use, pool)
    assert canceled > rounds / 10
    await observer.wait_backends(0)


async def use(pool: Pool) -> None:
    async with pool.connection() as connection:
        await assert_sound(connection)


async def test_one_connection(fuzzed: str, observer: Observer) -> None:
    """A few hundred on one connection."""
    await check(fuzzed, observer, rounds=400, seed=1)


async def test_many_cancel_requests(fuzzed: str, observer: Observer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that are repeated without a pause hit everything, also a ROLLBACK; none hits what comes after."""
    monkeypatch.setattr(cancellation, "ASK_AGAIN_SECONDS", 0.0005)
    await check(fuzzed, observer, rounds=200, seed=7, operations=REPEATED)


async def test_pool(fuzzed: str, observer: Observer) -> None:
    """And on a pool."""
    await check_pool(fuzzed, observer, rounds=300, seed=2)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_one_connection_for_long(fuzzed: str, observer: Observer) -> None:
    """Thousands on one connection."""
    await check(fuzzed, observer, rounds=2000, seed=3)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_pool_for_long(fuzzed: str, observer: Observer) -> None:
    """And on a pool."""
    await check_pool(fuzzed, observer, rounds=2000, seed=5)
