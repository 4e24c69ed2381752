"""Transaction blocks do what psycopg promises of them, in as few round trips as they can."""

from __future__ import annotations

from contextlib import asynccontextmanager, nullcontext
from itertools import pairwise
from typing import TYPE_CHECKING

import psycopg
import pytest
import trio
from psycopg import errors
from psycopg.pq import TransactionStatus
from psycopg.transaction import OutOfOrderTransactionNesting

from promptpipe.storage.postgres.driver import Connection
from tests.postgres.observer import assert_sound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from typing import TypeAlias

    from tests.postgres.observer import Observer

    RoundTrips: TypeAlias = Callable[[int], AbstractAsyncContextManager[None]]


@pytest.fixture
def table(observer: Observer) -> Iterator[str]:
    """Give an empty table that others see too."""
    observer.rows("CREATE TABLE inserted (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    yield "inserted"
    observer.rows("DROP TABLE inserted")


@pytest.fixture
def round_trips(connection: Connection, tmp_path: Path) -> RoundTrips:
    """Give a block that fails unless the connection asks as often as expected."""

    @asynccontextmanager
    async def expect(number: int) -> AsyncIterator[None]:
        with (tmp_path / "trace").open("w+") as file:
            connection.pgconn.trace(file.fileno())
            yield
            connection.pgconn.untrace()
            file.seek(0)
            senders = [line.split("\t")[1] for line in file]
        assert list(pairwise(senders)).count(("F", "B")) == number, senders

    return expect


async def insert(connection: Connection, *ids: int) -> None:
    for id_ in ids:
        await connection.execute("INSERT INTO inserted VALUES (%s)", [id_])


def inserted(observer: Observer) -> list[int]:
    return [id_ for (id_,) in observer.rows("SELECT id FROM inserted ORDER BY id")]


async def test_begin_comes_with_the_first_statement(
    connection: Connection, round_trips: RoundTrips, table: str
) -> None:
    """Two statements in a transaction are three round trips; preparing the first one costs no more."""
    async with round_trips(3), connection.transaction():
        await insert(connection, 1, 2)
    for _ in range(2):
        async with round_trips(2), connection.transaction():
            assert await (await connection.execute("SELECT %s::int", [1], prepare=True)).fetchone() == (1,)
    await assert_sound(connection)


async def test_block_without_statements(connection: Connection, round_trips: RoundTrips) -> None:
    """The server does not hear of it, however it is left."""
    async with round_trips(0):
        async with connection.transaction():
            assert not connection.usable()
        async with connection.transaction(force_rollback=True):
            pass
        async with connection.transaction():
            raise psycopg.Rollback
        with pytest.raises(KeyError):
            async with connection.transaction():
                raise KeyError
        async with connection.pipeline(), connection.transaction(), connection.pipeline():
            pass
    await assert_sound(connection)


@pytest.mark.parametrize("pipelined", [False, True])
async def test_mode(connection: Connection, observer: Observer, table: str, pipelined: bool) -> None:
    """It is said with BEGIN, whatever the connection's attributes say, and holds for one block."""
    await connection.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE)
    shown = "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')"
    mode = "ISOLATION LEVEL REPEATABLE READ, READ ONLY"
    async with connection.pipeline() if pipelined else nullcontext():
        async with connection.transaction(mode=mode):
            assert await (await connection.execute(shown)).fetchone() == ("repeatable read", "on")
        with pytest.raises(errors.ReadOnlySqlTransaction):
            async with connection.transaction(mode=mode):
                await insert(connection, 1)
        async with connection.transaction():
            assert await (await connection.execute(shown)).fetchone() == ("serializable", "off")
            await insert(connection, 2)
        with pytest.raises(psycopg.ProgrammingError, match="has a mode"):
            async with connection.transaction(), connection.transaction(mode=mode):
                pass
    assert inserted(observer) == [2]


async def test_several_statements_at_once(connection: Connection, observer: Observer, table: str) -> None:
    """A query of several statements may begin a transaction; what is first in it decides nothing."""
    async with connection.transaction(force_rollback=True):
        await connection.execute("INSERT INTO inserted VALUES (1); INSERT INTO inserted VALUES (2)")
        assert connection.info.transaction_status == TransactionStatus.INTRANS
    assert inserted(observer) == []


@pytest.mark.parametrize("first", ["stream", "copy", "batch", "server cursor", "savepoint", "pipeline"])
async def test_whatever_is_first(connection: Connection, observer: Observer, table: str, first: str) -> None:
    """Anything that asks the server begins the transaction."""
    async with connection.transaction(force_rollback=True):
        cursor = connection.cursor()
        match first:
            case "stream":
                assert [row async for row in cursor.stream("INSERT INTO inserted VALUES (%s) RETURNING id", [1])] == [
                    (1,)
                ]
            case "copy":
                async with cursor.copy("COPY inserted FROM STDIN") as copy:
                    await copy.write_row((1,))
            case "batch":
                await cursor.executemany("INSERT INTO inserted VALUES (%s)", [(1,), (2,)])
            case "server cursor":
                async with connection.cursor("first") as named:
                    await named.execute("SELECT %s", [1])
                    assert await named.fetchone() == (1,)
            case "savepoint":
                async with connection.transaction("named"):
                    await insert(connection, 1)
            case "pipeline":
                async with connection.pipeline():
                    await insert(connection, 1, 2)
        assert connection.info.transaction_status == TransactionStatus.INTRANS
    assert inserted(observer) == []
    await assert_sound(connection)


async def test_name(connection: Connection, observer: Observer, table: str) -> None:
    """The savepoint that a block is named for is there to go back to."""
    async with connection.transaction("name"):
        await insert(connection, 1)
        await connection.execute("ROLLBACK TO name")
        await insert(connection, 2)
    assert inserted(observer) == [2]


async def test_first_after_a_stream(connection: Connection, round_trips: RoundTrips) -> None:
    """A transaction's first statement returns its rows together, though the query before did not."""
    assert [row async for row in connection.cursor().stream("SELECT generate_series(1, 3)")] == [(1,), (2,), (3,)]
    async with connection.transaction():
        cursor = await connection.execute("SELECT generate_series(1, %s)", [3])
        assert await cursor.fetchall() == [(1,), (2,), (3,)]
    async with round_trips(2), connection.transaction():
        await connection.execute("SELECT %s", [1])
    assert [row async for row in connection.cursor().stream("SELECT 1")] == [(1,)]
    for expected in (2, 1):
        async with round_trips(expected), connection.pipeline():
            await connection.execute("SELECT 1")


async def test_first_fails(connection: Connection, observer: Observer, table: str) -> None:
    """The first statement's error is its own, whether the server or the driver finds it."""
    for query, parameters, error in (
        ("SELECT 1 / %s::int", [0], errors.DivisionByZero),
        ("SELECT %s, %s", [1], errors.ProgrammingError),
    ):
        with pytest.raises(error):
            async with connection.transaction():
                await connection.execute(query, parameters)
        await assert_sound(connection)
    async with connection.transaction():
        with pytest.raises(errors.DivisionByZero):
            await connection.execute("SELECT 1 / %s::int", [0])
        with pytest.raises(errors.InFailedSqlTransaction):
            await insert(connection, 1)
        raise psycopg.Rollback
    async with connection.transaction():
        with pytest.raises(errors.ProgrammingError):
            await connection.execute("SELECT %s, %s", [1])
        await insert(connection, 1)
        raise psycopg.Rollback
    assert inserted(observer) == []
    await assert_sound(connection)


async def test_closed_connection(connection: Connection) -> None:
    """A transaction cannot be entered when the connection is closed."""
    await connection.close()
    with pytest.raises(errors.OperationalError, match="closed"):
        async with connection.transaction():
            raise AssertionError("entered")


async def test_settings_within_a_block(connection: Connection) -> None:
    """Settings of transactions cannot be changed within one, also before its first statement."""
    async with connection.transaction():
        with pytest.raises(errors.ProgrammingError, match="in progress"):
            await connection.set_read_only(True)
    await connection.set_read_only(True)
    with pytest.raises(errors.ReadOnlySqlTransaction):
        async with connection.transaction():
            await connection.execute("CREATE TABLE never (id int)")


async def test_recovering_within_a_block(connection: Connection) -> None:
    """Prepared transactions can be listed at the beginning of another."""
    async with connection.transaction():
        assert await connection.tpc_recover() == []


async def test_wrong_order(connection: Connection) -> None:
    """Blocks that are left in the wrong order are an error, also in a pipeline."""
    for around in (nullcontext, connection.pipeline):
        async with around():
            outer, inner = connection.transaction(), connection.transaction()
            await outer.__aenter__()
            await inner.__aenter__()
            with pytest.raises(OutOfOrderTransactionNesting):
                await outer.__aexit__(None, None, None)
            with pytest.raises(OutOfOrderTransactionNesting):
                await inner.__aexit__(None, None, None)
            await connection.rollback()
        await assert_sound(connection)


async def test_pipelined_round_trips(
    connection: Connection, observer: Observer, round_trips: RoundTrips, table: str
) -> None:
    """In a pipeline, a transaction waits for the results that are asked for and for its end, for nothing else."""
    async with round_trips(2):
        async with connection.pipeline(), connection.transaction():
            assert await (await connection.execute("SELECT %s::int", [1])).fetchone() == (1,)
            await insert(connection, 1, 2, 3)
        assert inserted(observer) == [1, 2, 3]
    async with round_trips(2), connection.pipeline():
        async with connection.transaction():
            await insert(connection, 4)
        async with connection.transaction():
            await insert(connection, 5)
    assert inserted(observer) == [1, 2, 3, 4, 5]
    await assert_sound(connection)


async def test_pipelined_failure(connection: Connection, observer: Observer, table: str) -> None:
    """A statement whose result nobody asked for fails the block at its end; the pipeline goes on after it."""
    notices: list[str | None] = []
    connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    async with connection.pipeline():
        await insert(connection, 1)
        with pytest.raises(errors.DivisionByZero):  # noqa: PT012  all of it is needed
            async with connection.transaction() as failed:
                await insert(connection, 2)
                await connection.execute("SELECT 1 / %s::int", [0])
                await insert(connection, 3)
        assert failed.status is failed.Status.ROLLED_BACK_WITH_ERROR
        async with connection.transaction():
            await insert(connection, 4)
            with pytest.raises(errors.DivisionByZero):  # noqa: PT012  all of it is needed
                async with connection.transaction():
                    await insert(connection, 5)
                    await connection.execute("SELECT 1 / %s::int", [0])
            await insert(connection, 6)
        with pytest.raises(errors.UniqueViolation):
            async with connection.transaction():
                await insert(connection, 4)
        assert connection.info.transaction_status == TransactionStatus.IDLE
        await insert(connection, 7)
    assert inserted(observer) == [1, 4, 6, 7]
    assert notices == []
    await assert_sound(connection)


async def test_pipelined_rollback(connection: Connection, observer: Observer, table: str) -> None:
    """A block left by an exception, or to be rolled back, takes its statements with it and no others."""
    async with connection.pipeline():
        await insert(connection, 1)
        async with connection.transaction(force_rollback=True):
            await insert(connection, 2)
        with pytest.raises(KeyError):  # noqa: PT012  all of it is needed
            async with connection.transaction():
                await insert(connection, 3)
                await connection.execute("SELECT 1 / %s::int", [0])
                raise KeyError
        with pytest.raises(errors.DivisionByZero):
            async with connection.transaction(force_rollback=True):
                await connection.execute("SELECT 1 / %s::int", [0])
        async with connection.transaction() as outer:
            await insert(connection, 4)
            async with connection.transaction():
                await insert(connection, 5)
                raise psycopg.Rollback(outer)
        await insert(connection, 6)
    assert inserted(observer) == [1, 6]
    await assert_sound(connection)


@pytest.mark.parametrize("named", ["", "name"])
@pytest.mark.parametrize("autocommit", [False, True])
async def test_pipelined_in_any_mode(url: str, observer: Observer, table: str, autocommit: bool, named: str) -> None:
    """Blocks commit at their end without autocommit too, and may have a savepoint's name."""
    notices: list[str | None] = []
    async with await Connection.connect(url, autocommit=autocommit) as connection:
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        async with connection.pipeline():
            async with connection.transaction(named or None):
                assert await (await connection.execute("SELECT %s::int", [1])).fetchone() == (1,)
                await insert(connection, 1)
            async with connection.transaction(named or None, force_rollback=True):
                await insert(connection, 2)
            assert connection.info.transaction_status == TransactionStatus.IDLE
            assert inserted(observer) == [1]
        assert connection.usable()
    assert notices == []


async def test_canceled_at_the_first_statement(connection: Connection, observer: Observer, table: str) -> None:
    """A first statement that waits for a lock is canceled in the server with the transaction it began."""
    observer.rows("BEGIN")
    observer.rows("LOCK TABLE inserted")
    for pipelined in (False, True):
        began = trio.current_time()
        with trio.move_on_after(0.05) as scope:
            if pipelined:
                async with connection.pipeline(), connection.transaction():
                    await insert(connection, 1)
            else:
                async with connection.transaction():
                    await insert(connection, 1)
        assert scope.cancelled_caught
        assert trio.current_time() - began < 1.0
        assert observer.running() == 0
    observer.rows("ROLLBACK")
    assert inserted(observer) == []
    await assert_sound(connection)
