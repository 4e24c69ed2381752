"""Statements that are used again and again answer as psycopg's cursors do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psycopg
import pytest
import trio
from psycopg import errors
from psycopg.rows import dict_row

from tests.postgres.observer import assert_sound

if TYPE_CHECKING:
    from promptpipe.storage.postgres.driver import Connection
    from tests.postgres.observer import Observer

EVERYTHING = (
    "SELECT %(number)s::bigint AS number, %(text)s::text AS text, %(texts)s::text[] AS texts, %(raw)s::bytea AS raw,"
    " %(nothing)s::text AS nothing, %(at)s::timestamptz AS at, %(truth)s::bool AS truth"
)
VALUES: dict[str, object] = {
    "number": 7,
    "text": "é\n%s",
    "texts": ["a", 'b"', "{,}"],
    "nothing": None,
    "at": datetime(2026, 3, 1, tzinfo=UTC),
    "raw": b"\0\xff",
    "truth": True,
}


async def test_rows_are_those_of_a_cursor(connection: Connection) -> None:
    """Of every type, before and after the server has prepared the statement, none or many of them."""
    cursor = await connection.cursor(row_factory=dict_row).execute(EVERYTHING, VALUES, binary=True)
    expected = await cursor.fetchall()
    async with connection.pipeline():
        for _ in range(8):
            assert await (await connection.ask(EVERYTHING, VALUES)).rows() == expected
        series = "SELECT n, 'x' || n AS x FROM generate_series(1, %(last)s::int) AS n"
        for last in (0, 3, 1):
            answer = await connection.ask(series, {"last": last})
            assert await answer.rows() == [{"n": n, "x": f"x{n}"} for n in range(1, last + 1)]
    [(prepared,)] = await (await connection.execute("SELECT count(*) FROM pg_prepared_statements")).fetchall()
    assert prepared == 1


async def test_values_may_have_another_type_the_next_time(connection: Connection) -> None:
    """It is another statement for the server then."""
    async with connection.pipeline():
        for value in (1, None, "2", 3, 2**40, None, "-1") * 4:
            answer = await connection.ask("SELECT %(value)s::bigint AS value", {"value": value})
            assert await answer.rows() == [{"value": None if value is None else int(value)}]


async def test_answers_are_kept_apart(connection: Connection) -> None:
    """However many are asked before the first is looked at, and in whatever order they are."""
    async with connection.pipeline():
        answers = [await connection.ask("SELECT %(n)s::int AS n", {"n": n}) for n in range(100)]
        for n in reversed(range(100)):
            assert await answers[n].rows() == [{"n": n}]


async def fail(connection: Connection) -> None:
    async with connection.pipeline(), connection.transaction():
        await connection.ask("INSERT INTO canceled VALUES (%(id)s)", {"id": 1})
        failing = await connection.ask("SELECT 1 / %(n)s::int AS n", {"n": 0})
        after = await connection.ask("INSERT INTO canceled VALUES (%(id)s) RETURNING id", {"id": 2})
        with pytest.raises(errors.DivisionByZero):
            await after.rows()
        for lost in (failing, after):
            with pytest.raises(RuntimeError, match="was said elsewhere"):
                await lost.rows()
        raise LookupError


async def test_failure_is_told_to_whoever_waits(connection: Connection, table: str, observer: Observer) -> None:
    """What follows it is not executed, and the connection can be used after."""
    with pytest.raises(LookupError):
        await fail(connection)
    assert observer.rows("SELECT id FROM canceled") == []
    await assert_sound(connection)
    async with connection.pipeline():
        assert await (await connection.ask("SELECT 1 / %(n)s::int AS n", {"n": 1})).rows() == [{"n": 1}]


async def test_failure_that_nobody_waits_for(connection: Connection) -> None:
    """It is raised at the end of the block."""
    with pytest.raises(errors.DivisionByZero):
        async with connection.pipeline():
            await connection.ask("SELECT 1 / %(n)s::int AS n", {"n": 0})
    await assert_sound(connection)


async def test_preparation_that_fails_is_forgotten(connection: Connection, observer: Observer) -> None:
    """The statement can be used again when it is right."""
    counting = "SELECT count(*) AS count FROM made_later WHERE 0 = %(zero)s"
    for _ in range(8):
        with pytest.raises(errors.UndefinedTable):
            async with connection.pipeline():
                await connection.ask(counting, {"zero": 0})
    observer.rows("CREATE TABLE made_later ()")
    for _ in range(8):
        async with connection.pipeline():
            assert await (await connection.ask(counting, {"zero": 0})).rows() == [{"count": 0}]
    observer.rows("DROP TABLE made_later")


async def test_wrong_use(connection: Connection) -> None:
    """Without a pipeline, without a value, with one that cannot be written, on a connection that is closed."""
    with pytest.raises(psycopg.ProgrammingError, match="for a pipeline"):
        await connection.ask("SELECT %(n)s::int", {"n": 1})
    async with connection.pipeline():
        with pytest.raises(psycopg.ProgrammingError, match="missing"):
            await connection.ask("SELECT %(n)s::int AS n", {})
        with pytest.raises(psycopg.ProgrammingError, match="cannot adapt"):
            await connection.ask("SELECT %(n)s::int AS n", {"n": object()})
        assert await (await connection.ask("SELECT %(n)s::int AS n", {"n": 1})).rows() == [{"n": 1}]
    await connection.close()
    with pytest.raises(psycopg.OperationalError):
        async with connection.pipeline():
            await connection.ask("SELECT %(n)s::int AS n", {"n": 1})


async def test_canceled_wait(connection: Connection, observer: Observer) -> None:
    """The server stops too."""
    with trio.move_on_after(0.05) as scope:
        async with connection.pipeline():
            await (await connection.ask("SELECT pg_sleep(%(seconds)s)::text AS slept", {"seconds": 60})).rows()
    assert scope.cancelled_caught
    await assert_sound(connection)
    assert observer.backends() == 1


QUERY = "SELECT id FROM canceled"
INSERT = "INSERT INTO canceled VALUES (%(id)s) RETURNING id"
TRANSACTION = "SELECT pg_current_xact_id()::text AS id, %(n)s::int AS n"


async def test_transaction_that_the_server_begins_by_itself(
    connection: Connection, table: str, observer: Observer
) -> None:
    """What is sent to the end of a block without BEGIN is one transaction all the same, and committed in the end."""
    async with connection.pipeline(), connection.transaction():
        answers = [await connection.ask(TRANSACTION, {"n": 1}, begin=False)]
        await connection.ask(INSERT, {"id": 1}, begin=False)
        answers.append(await connection.ask(TRANSACTION, {"n": 2}, begin=False))
    first, second = [(await answer.rows())[0]["id"] for answer in answers]
    assert first == second
    assert observer.rows(QUERY) == [(1,)]
    await assert_sound(connection)


async def test_nothing_of_it_when_one_statement_fails(connection: Connection, table: str, observer: Observer) -> None:
    """And the connection can be used after."""

    async def insert_and_fail() -> None:
        async with connection.pipeline(), connection.transaction():
            await connection.ask(INSERT, {"id": 1}, begin=False)
            await connection.ask("SELECT 1 / %(n)s::int AS n", {"n": 0}, begin=False)

    with pytest.raises(errors.DivisionByZero):
        await insert_and_fail()
    assert observer.rows(QUERY) == []
    await assert_sound(connection)


async def test_canceled_on_its_way_out_it_is_committed(connection: Connection, table: str, observer: Observer) -> None:
    """As any transaction whose block has come to its end."""
    with trio.CancelScope() as scope:
        async with connection.pipeline(), connection.transaction():
            answer = await connection.ask(INSERT, {"id": 1}, begin=False)
            scope.cancel()
        assert await answer.rows() == [{"id": 1}]
    assert observer.rows(QUERY) == [(1,)]
    await assert_sound(connection)
