"""A connection to PostgreSQL whose waiting, connecting and canceling are Trio's."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

import trio
from psycopg import errors as e
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import conninfo_to_dict, make_conninfo, timeout_from_conninfo
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import Row

from promptpipe.storage.postgres.driver.asking import Answer, Statement
from promptpipe.storage.postgres.driver.attempts import connection_attempts, failure_of_all
from promptpipe.storage.postgres.driver.cancellation import CancelableConnection
from promptpipe.storage.postgres.driver.pipeline import Pipeline
from promptpipe.storage.postgres.driver.transaction import Transaction
from promptpipe.storage.postgres.driver.wire import run_connecting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from typing import Any, Self

    from psycopg import AsyncPipeline, AsyncTransaction
    from psycopg._tpc import Xid
    from psycopg.abc import AdaptContext, ConnMapping, ConnParam, PQGen
    from psycopg.cursor_async import AsyncCursor
    from psycopg.rows import AsyncRowFactory

MAX_READS_WHEN_IDLE = 16
"""A connection that has more than this to say while nobody asked is not worth the wait."""


class Connection(CancelableConnection[Row]):
    """A `psycopg.AsyncConnection` on Trio. To be used by one task at a time; a second one waits for its turn.

    **Cancellation.** Trio's is level-triggered: once canceled, every further wait raises `trio.Cancelled` again, so
    that psycopg's own clean-up would never run. Here,

    - what has not begun when it is canceled does not begin;
    - a query canceled midway is canceled in the server and its results are thrown away. In autocommit mode it may have
      taken effect all the same; in a transaction it is rolled back with it;
    - COMMIT, ROLLBACK, the phases of a two-phase commit and the ends of pipelines, COPY and server cursors run to
      their end. So a transaction whose body ended normally is committed though it is canceled on its way out: a
      block left without an exception has committed. Left by `trio.Cancelled` it was rolled back, except when the
      connection is `closed` afterwards: then a COMMIT may have been on its way;
    - in a pipeline, statements whose results have not come yet are still running: its end cancels them.

    All this clean-up has `cleanup_seconds` from the moment of cancellation; then the connection is closed.

    `stream()` and `notifies()` are async generators: put them into `contextlib.aclosing`. A COPY out of the server is
    read to its end, or left by an exception; the connection of one that is left earlier is closed. Notifications that
    arrived together are lost when `notifies()` is left between them: take them as hints.
    """

    def __init__(self, *psycopg_has: Any) -> None:
        super().__init__(*psycopg_has)
        self._statements: dict[str, Statement] = {}

    @classmethod
    async def connect(
        cls,
        conninfo: str = "",
        *,
        autocommit: bool = False,
        prepare_threshold: int | None = 5,
        context: AdaptContext | None = None,
        row_factory: AsyncRowFactory[Row] | None = None,
        cursor_factory: type[AsyncCursor[Row]] | None = None,
        **kwargs: ConnParam,
    ) -> Self:
        """Connect to the first of the hosts in *conninfo* and *kwargs* that lets us in, and return the connection.

        All of libpq's parameters are understood. `connect_timeout` (seconds, at least 2, 130 by default) is for each
        attempt. Raise `OperationalError` when no attempt succeeds (a wrong password is one too: libpq does not tell
        what the server's reason was except in words), `ConnectionTimeout` when the last one took too long, and
        `ProgrammingError` for parameters that libpq does not know.
        """
        parameters = conninfo_to_dict(conninfo, **kwargs)
        seconds = timeout_from_conninfo(parameters)
        failures: list[tuple[ConnMapping, e.Error]] = []
        for attempt in await connection_attempts(parameters):
            try:
                with trio.fail_after(seconds):
                    self = await run_connecting(cls._connect_gen(make_conninfo("", **attempt)))
            except trio.TooSlowError:
                failures.append((attempt, e.ConnectionTimeout(f"connection timeout expired after {seconds} s")))
            except e.Error as error:
                failures.append((attempt, error))
            else:
                break
        else:
            raise failure_of_all(failures)
        self._autocommit = autocommit
        self.row_factory = row_factory or self.row_factory
        self.cursor_factory = cursor_factory or self.cursor_factory
        if context:
            self._adapters = AdaptersMap(context.adapters)
        self.prepare_threshold = prepare_threshold
        return self

    async def close(self) -> None:
        """Close the connection, without waiting; a task that waits for it gets `OperationalError`."""
        self.abandon()

    def abandon(self) -> None:
        """Do what `close` does, where nothing can be awaited."""
        if not self.closed:
            self._closed = True
            self._wire.close()

    def usable(self) -> bool:
        """Return whether the connection is open, idle and in no block, as far as can be told without asking the server.

        Something to read though nothing was asked is a notice, a notification, or the server's last words. It is read
        until nothing is left.
        """
        pgconn = self.pgconn
        if (
            self.closed
            or pgconn.transaction_status != TransactionStatus.IDLE
            or pgconn.pipeline_status != PipelineStatus.OFF
            or self._num_transactions
            or self._tpc
            or self.lock.locked()
        ):
            return False
        severities = set()

        def handler(notice: e.Diagnostic) -> None:
            severities.add(notice.severity_nonlocalized)  # the notice itself does not outlive this call

        self.add_notice_handler(handler)
        try:
            for _ in range(MAX_READS_WHEN_IDLE):
                if not self._wire.readable():
                    break
                pgconn.consume_input()
                while notification := pgconn.notifies():
                    if pgconn.notify_handler:
                        pgconn.notify_handler(notification)
            else:
                return False
        except e.OperationalError:
            return False
        finally:
            self.remove_notice_handler(handler)
        return severities.isdisjoint({"ERROR", "FATAL", "PANIC"})

    @asynccontextmanager
    async def transaction(
        self,
        savepoint_name: str | None = None,
        force_rollback: bool = False,  # noqa: FBT001, FBT002  as psycopg has it
        *,
        mode: str = "",
    ) -> AsyncIterator[AsyncTransaction]:
        """Begin a transaction, or a savepoint within one; commit it at the end, or roll back when left by an exception.

        `psycopg.Rollback` rolls back and ends there. For cancellation see `Connection`. In autocommit mode, BEGIN is
        sent with the first statement, in the same round trip if that has parameters. Until then the server knows
        nothing of the block, and `info.transaction_status` is `IDLE`.

        *mode* is said with that BEGIN, as in `READ ONLY`, instead of what the connection's attributes say. Where none
        is sent that way, in a block within a block or without autocommit, it raises `ProgrammingError`.
        """
        await self._settle()
        transaction = Transaction(self, savepoint_name, force_rollback, mode=mode)
        try:
            async with transaction:
                yield transaction
        finally:
            if transaction.status is Transaction.Status.ACTIVE:
                self._break("a transaction could not be ended")

    async def _settle(self) -> None:
        """Send BEGIN if that was left for later, and wait until nothing runs: now the transaction's status is known."""
        if self.begin_later or (self._pipeline and not self._pipeline.settled):
            async with self.lock:
                await self.wait(self._settle_gen())

    def _settle_gen(self) -> PQGen[None]:
        if self.begin_later:
            yield from self._start_query()
        if self._pipeline:
            yield from self._pipeline.settle_gen()

    def _start_query(self) -> PQGen[None]:
        if command := self.begin_later:
            self.begin_later = b""
            yield from self._exec_command(command)
        else:
            yield from super()._start_query()

    def begin_with_gen(self, statement: PQGen[None]) -> PQGen[None]:
        """Run *statement*, and the BEGIN that it sends in front of itself, in one round trip if possible."""
        if self._pipeline:
            yield from statement
        else:
            with self._pipeline_of_its_own() as pipeline:
                yield from pipeline.run_gen(statement)

    def _check_intrans_gen(self, attribute: str) -> PQGen[None]:
        if self.begin_later:
            yield from self._start_query()
        yield from super()._check_intrans_gen(attribute)

    async def ask(self, sql: str, values: Mapping[str, object], *, begin: bool = True) -> Answer:
        """Send a statement in the pipeline that is open, and return what gives its rows, as dictionaries, once asked.

        What would fail in `execute` fails here; rows travel in the binary format. The statement is remembered for as
        long as the connection lives: this is for those that are a program's own, and used again and again.

        Without *begin* a transaction block that has sent nothing yet stays so. What is sent that way up to the next
        synchronization of the pipeline is a transaction nevertheless, which the server begins and ends by itself.
        """
        statement = self._statements.get(sql)
        if statement is None:
            statement = self._statements[sql] = Statement(self, sql, values)
        answer = Answer(self, statement)
        async with self.lock:
            await self.wait(answer.send_gen(values, begin=begin))
        return answer

    async def fetch_answers(self) -> None:
        """Wait for all that the pipeline has sent; raise the first error of it."""
        async with self.lock:
            if self._pipeline:
                await self.wait(self._pipeline._fetch_gen(flush=True))  # noqa: SLF001

    async def tpc_recover(self) -> list[Xid]:
        """Return the transactions that have been prepared and not ended, by whomever."""
        await self._settle()
        return await super().tpc_recover()

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator[AsyncPipeline]:
        """Send statements without waiting for the results of those before; raise at the end what failed, if not before.

        After a statement that failed, those up to the next synchronization raise `PipelineAborted`.
        """
        self._check_connection_ok()
        pipeline = self._pipeline = self._pipeline or Pipeline(self)
        level = pipeline.level
        try:
            async with pipeline:
                yield pipeline
        except BaseException:
            if pipeline.level > level or (not level and self.pgconn.pipeline_status):
                self._break("a pipeline could not be ended")
            elif not level and self._autocommit and not self._num_transactions and not self._tpc:
                self._pipeline = None
                with suppress(e.Error):
                    # A ROLLBACK in the pipeline may have been canceled with it. This one shields itself.
                    await self.rollback()  # noqa: ASYNC102
            raise
        finally:
            if not pipeline.level:
                self._pipeline = None

    @asynccontextmanager
    async def _pipeline_nolock(self) -> AsyncIterator[AsyncPipeline]:
        """Give a pipeline to psycopg, for a batch; it holds the lock."""
        with self._pipeline_of_its_own() as pipeline:
            async with pipeline:
                yield pipeline

    @contextmanager
    def _pipeline_of_its_own(self) -> Iterator[Pipeline]:
        pipeline = self._pipeline = Pipeline(self, has_lock=True)
        try:
            yield pipeline
        finally:
            self._pipeline = None
            if self.pgconn.pipeline_status:
                self._break("a batch could not be ended")
