"""What psycopg promises of a connection holds on Trio."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import psycopg
import pytest
import trio
import trio.testing
from psycopg import IsolationLevel, errors
from psycopg.rows import dict_row

from promptpipe.storage.postgres.driver import Connection, pipeline
from tests.postgres.observer import assert_sound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.postgres.observer import Observer

LARGE = 30_000_000


@pytest.fixture
async def table(connection: Connection) -> str:
    """Give an empty table of its own to the connection."""
    await connection.execute("CREATE TEMP TABLE t (id int PRIMARY KEY, v text)")
    return "t"


async def ids(connection: Connection) -> list[int]:
    """Return what is in the table."""
    return [id_ for (id_,) in await (await connection.execute("SELECT id FROM t ORDER BY id")).fetchall()]


async def test_query(connection: Connection) -> None:
    """Parameters go in, rows come out, also when the statement has been prepared meanwhile."""
    for number in range(10):
        cursor = await connection.execute("SELECT %s::int AS number, %s AS text", [number, "ü"])
        assert await cursor.fetchall() == [(number, "ü")]


async def test_row_factory(url: str) -> None:
    """Rows look as the row factory makes them."""
    async with await Connection.connect(url, row_factory=dict_row) as connection:
        assert await (await connection.execute("SELECT 1 AS one")).fetchone() == {"one": 1}


async def test_error_keeps_the_connection(connection: Connection) -> None:
    """A failing statement raises psycopg's error with its SQLSTATE, and the next one runs."""
    with pytest.raises(errors.DivisionByZero) as caught:
        await connection.execute("SELECT 1/0")
    assert caught.value.sqlstate == "22012"
    await assert_sound(connection)


async def test_transactions_and_savepoints(connection: Connection, table: str) -> None:
    """A failed savepoint takes only its own rows with it; a failed transaction takes all."""
    async with connection.transaction():
        await connection.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(KeyError):  # noqa: PT012  all of it is needed
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (2)")
                raise KeyError
    assert await ids(connection) == [1]
    async with connection.transaction() as outer:
        await connection.execute("INSERT INTO t VALUES (3)")
        raise psycopg.Rollback(outer)
    assert await ids(connection) == [1]
    await assert_sound(connection)


async def test_leaving_the_connection_commits_or_rolls_back(url: str, observer: Observer) -> None:
    """Without autocommit, the end of the block decides; then the connection is closed."""
    observer.rows("CREATE TABLE left_connection (id int)")
    async with await Connection.connect(url) as connection:
        await connection.execute("INSERT INTO left_connection VALUES (1)")
    assert connection.closed
    with pytest.raises(KeyError):  # noqa: PT012  all of it is needed
        async with await Connection.connect(url) as connection:
            await connection.execute("INSERT INTO left_connection VALUES (2)")
            raise KeyError
    assert observer.rows("SELECT id FROM left_connection") == [(1,)]


async def test_isolation_level(connection: Connection) -> None:
    """Settings of transactions are those of the next one."""
    await connection.set_isolation_level(IsolationLevel.SERIALIZABLE)
    await connection.set_read_only(True)
    async with connection.transaction():
        assert await (await connection.execute("SHOW transaction_isolation")).fetchone() == ("serializable",)
        with pytest.raises(errors.ReadOnlySqlTransaction):
            async with connection.transaction():
                await connection.execute("CREATE TABLE never (id int)")


async def test_executemany(connection: Connection, table: str) -> None:
    """A batch inserts every row and returns what each returned."""
    cursor = connection.cursor()
    await cursor.executemany("INSERT INTO t VALUES (%s)", [(number,) for number in range(5000)])
    assert cursor.rowcount == 5000
    more = [(number,) for number in range(6000, 6010)]
    await cursor.executemany("INSERT INTO t VALUES (%s) RETURNING id", more, returning=True)
    assert [await result.fetchone() async for result in cursor.results()] == more
    await assert_sound(connection)


async def test_pipeline(connection: Connection, table: str) -> None:
    """Statements are sent without waiting; each cursor has its own result."""
    async with connection.pipeline():
        cursors = [await connection.execute("SELECT %s::int", [number]) for number in range(300)]
        assert [await cursor.fetchone() for cursor in cursors] == [(number,) for number in range(300)]
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES (1)")
    assert await ids(connection) == [1]
    await assert_sound(connection)


async def test_pipeline_errors(connection: Connection, table: str) -> None:
    """A statement's error is raised where its result is asked for, those behind it are aborted, the rest goes on."""
    async with connection.pipeline() as pipeline:
        await connection.execute("INSERT INTO t VALUES (1)")
        failing = await connection.execute("SELECT 1/0")
        with pytest.raises(errors.DivisionByZero):
            await failing.fetchone()
        aborted = await connection.execute("INSERT INTO t VALUES (2)")
        with pytest.raises(errors.PipelineAborted):
            await aborted.fetchone()
        await pipeline.sync()
        await connection.execute("INSERT INTO t VALUES (3)")
    assert await ids(connection) == [3]
    with pytest.raises(errors.DivisionByZero):  # noqa: PT012  all of it is needed
        async with connection.pipeline():
            await connection.execute("SELECT 1/0")
            await connection.execute("SELECT 1")
    await assert_sound(connection)


async def test_nested_pipelines(connection: Connection) -> None:
    """A pipeline within another synchronizes at both ends: what failed before it fails its beginning."""
    async with connection.pipeline():
        assert not connection.usable()
        await connection.execute("SELECT 1/0")
        with pytest.raises(errors.DivisionByZero):
            async with connection.pipeline():
                raise AssertionError("entered")
        with pytest.raises(errors.DivisionByZero):
            async with connection.pipeline():
                await connection.execute("SELECT 1/0")
        await connection.execute("SELECT 1")
    await assert_sound(connection)


async def test_pipeline_left_in_a_transaction(connection: Connection) -> None:
    """A pipeline that is left by an exception leaves no transaction open in autocommit mode."""
    with pytest.raises(KeyError):  # noqa: PT012  all of it is needed
        async with connection.pipeline():
            await connection.execute("BEGIN")
            raise KeyError
    await assert_sound(connection)


async def test_copy_in_a_pipeline(connection: Connection, url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The server has no way back from it: the connection is closed."""
    with pytest.raises(errors.OperationalError, match="COPY"):
        async with connection.pipeline():
            await connection.execute("COPY (SELECT 1) TO STDOUT")
    assert connection.closed
    async with await Connection.connect(url, autocommit=True) as other:
        with pytest.raises(errors.OperationalError, match="COPY"):
            await other.cursor().executemany("COPY (SELECT 1) TO STDOUT", [[]])
        assert other.closed
    assert caplog.text.count("could not be ended") == 2


async def test_large_statement_that_nobody_waits_for(connection: Connection) -> None:
    """The end of a pipeline sends what the socket has not taken yet, and nothing of the pipeline remains."""
    async with connection.pipeline():
        await connection.execute("SELECT length(%s)", ["z" * LARGE])
    await trio.testing.wait_all_tasks_blocked()
    assert pipeline._sender_of_this_run().waiting == []
    await assert_sound(connection)


async def test_statement_not_prepared_after_all(connection: Connection) -> None:
    """A statement whose preparation was aborted with its pipeline can be used after it."""
    query = "SELECT %s::int"
    for number in range(5):
        await connection.execute(query, [number])
    with pytest.raises(errors.DivisionByZero):  # noqa: PT012  all of it is needed
        async with connection.pipeline():
            await connection.execute("SELECT 1/0")
            await connection.execute(query, [5])
    for number in range(8):
        assert await (await connection.execute(query, [number])).fetchone() == (number,)


async def test_copy_both_ways(connection: Connection, table: str) -> None:
    """What is copied in comes out again."""
    rows = [(number, f"tab\t{number}") for number in range(20_000)]
    cursor = connection.cursor()
    async with cursor.copy("COPY t FROM STDIN") as copy:
        for row in rows:
            await copy.write_row(row)
    assert cursor.rowcount == len(rows)
    async with cursor.copy("COPY (SELECT * FROM t ORDER BY id) TO STDOUT") as copy:
        copy.set_types(["int4", "text"])
        assert [row async for row in copy.rows()] == rows
    await assert_sound(connection)


async def test_copy_that_fails(connection: Connection, table: str) -> None:
    """An error in the body undoes a COPY; the connection goes on."""
    with pytest.raises(KeyError):  # noqa: PT012  all of it is needed
        async with connection.cursor().copy("COPY t FROM STDIN") as copy:
            await copy.write_row((1, "a"))
            raise KeyError
    with pytest.raises(errors.BadCopyFileFormat):
        async with connection.cursor().copy("COPY t FROM STDIN") as copy:
            await copy.write("not\ta\trow\n")
    with pytest.raises(KeyError):  # noqa: PT012  all of it is needed
        async with connection.cursor().copy("COPY (SELECT generate_series(1, 10000000)) TO STDOUT") as copy:
            await copy.read()
            raise KeyError
    assert await ids(connection) == []
    await assert_sound(connection)


async def test_copy_left_half_read(connection: Connection, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody inherits a connection with a COPY still running on it: it is closed, and that is logged."""
    async with connection.cursor().copy("COPY (SELECT generate_series(1, 10000000)) TO STDOUT") as copy:
        await copy.read()
    assert connection.closed
    assert "left running" in caplog.text


async def test_stream(connection: Connection) -> None:
    """Rows come one by one, or in chunks where libpq can; left early, the rest is dropped."""
    query = "SELECT generate_series(1, 3000)"
    assert [row async for row in connection.cursor().stream(query)] == [(n,) for n in range(1, 3001)]
    if psycopg.capabilities.has_stream_chunked():
        assert len([row async for row in connection.cursor().stream(query, size=100)]) == 3000
    async with aclosing(connection.cursor().stream("SELECT generate_series(1, 10000000)")) as rows:  # type: ignore[type-var]  # it is a generator
        assert await anext(rows) == (1,)
    await assert_sound(connection)


async def test_stream_before_a_pipeline(connection: Connection) -> None:
    """A pipeline, or a batch, that follows a stream gets whole results."""
    for _ in range(2):
        assert len([row async for row in connection.cursor().stream("SELECT generate_series(1, 3)")]) == 3
        async with connection.pipeline():
            assert len(await (await connection.execute("SELECT generate_series(1, 3)")).fetchall()) == 3
        assert len([row async for row in connection.cursor().stream("SELECT generate_series(1, 3)")]) == 3
        cursor = connection.cursor()
        await cursor.executemany("SELECT generate_series(1, %s)", [(3,), (4,)], returning=True)
        assert [len(await result.fetchall()) async for result in cursor.results()] == [3, 4]


async def test_server_cursor(connection: Connection) -> None:
    """A cursor in the server is read in pages, scrolled, and gone after its block."""
    async with connection.transaction():
        async with connection.cursor("pages", scrollable=True) as cursor:
            await cursor.execute("SELECT generate_series(1, 1000)")
            assert await cursor.fetchmany(2) == [(1,), (2,)]
            await cursor.scroll(500, mode="absolute")
            assert len([row async for row in cursor]) == 500
        assert await (await connection.execute("SELECT count(*) FROM pg_cursors")).fetchone() == (0,)
    await assert_sound(connection)


@pytest.mark.parametrize("prepared", [False, True])
async def test_two_phase(url: str, observer: Observer, prepared: bool) -> None:
    """A two-phase transaction takes effect when it is committed, by whoever knows its name."""
    observer.rows("CREATE TABLE IF NOT EXISTS two_phase (id int)")
    observer.rows("TRUNCATE two_phase")
    async with await Connection.connect(url) as connection:
        name = connection.xid(7, f"global {prepared}", "branch")
        await connection.tpc_begin(name)
        await connection.execute("INSERT INTO two_phase VALUES (1)")
        if prepared:
            await connection.tpc_prepare()
            assert not connection.usable()
            await connection.close()
        else:
            await connection.tpc_commit()
    async with await Connection.connect(url) as other:
        recovered = [known for known in await other.tpc_recover() if str(known) == str(name)]
        assert len(recovered) == prepared
        for known in recovered:
            assert observer.value("SELECT count(*) FROM two_phase") == 0
            await other.tpc_commit(known)
    assert observer.value("SELECT count(*) FROM two_phase") == 1


async def test_large_values_both_ways(connection: Connection) -> None:
    """What does not fit into any buffer is sent while answers are read, alone and in a pipeline."""
    large = "z" * LARGE
    assert await (await connection.execute("SELECT %s::text", [large])).fetchone() == (large,)
    third = "q" * (LARGE // 10)
    async with connection.pipeline():
        cursors = [await connection.execute("SELECT %s::text", [third]) for _ in range(10)]
        for cursor in cursors:
            assert await cursor.fetchone() == (third,)
    await assert_sound(connection)


async def test_notices(connection: Connection) -> None:
    """Notices reach their handlers."""
    heard = []
    connection.add_notice_handler(lambda notice: heard.append(notice.message_primary))
    await connection.execute("DO $$ BEGIN RAISE NOTICE 'hear'; END $$")
    assert heard == ["hear"]
    assert connection.usable()
    assert len(connection._notice_handlers) == 1


async def test_tasks_take_turns(connection: Connection) -> None:
    """Tasks that share a connection are served in the order they came."""
    served = []

    async def ask(number: int) -> None:
        await connection.execute("SELECT pg_sleep(0.001)")
        served.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(ask, number)
            await trio.testing.wait_all_tasks_blocked()
    assert served == list(range(10))


async def test_nobody_jumps_the_queue(connection: Connection) -> None:
    """A task that asks again at once comes after those that wait already."""
    served = []

    async def ask(name: str, times: int) -> None:
        for _ in range(times):
            await connection.execute("SELECT pg_sleep(0.001)")
            served.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, "first", 3)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask, "second", 3)
    assert served == ["first", "second"] * 3


async def copy_without_waiting(connection: Connection) -> None:
    async with connection.cursor().copy(
        "COPY (SELECT repeat('x', 100) FROM generate_series(1, 100000)) TO STDOUT"
    ) as copy:
        async for _ in copy:
            pass


async def pipeline_without_waiting(connection: Connection) -> None:
    async with connection.pipeline():
        for _ in range(4000):
            await connection.execute("SELECT 1")


async def batch_without_waiting(connection: Connection) -> None:
    await connection.cursor().executemany("SELECT %s::int", ((number,) for number in range(10_000)))


async def blocks_without_statements(connection: Connection) -> None:
    for _ in range(5000):
        async with connection.transaction():
            pass


@pytest.mark.parametrize(
    "work", [copy_without_waiting, pipeline_without_waiting, batch_without_waiting, blocks_without_statements]
)
async def test_busy_connections_let_others_run(
    connection: Connection, url: str, work: Callable[[Connection], Awaitable[None]]
) -> None:
    """Work that never has to wait gives the event loop a turn every few milliseconds, however many do it."""
    turns = 0

    async def watch() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with await Connection.connect(url, autocommit=True) as other, trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        began = trio.current_time()
        async with trio.open_nursery() as workers:
            workers.start_soon(work, connection)
            workers.start_soon(work, other)
        seconds = trio.current_time() - began
        nursery.cancel_scope.cancel()
    assert turns > seconds / 0.05
