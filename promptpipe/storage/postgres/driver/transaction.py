"""Transaction blocks: psycopg's own, which do not wait for BEGIN, nor in a pipeline for what precedes COMMIT."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from psycopg import AsyncCursor, AsyncTransaction, Error, ProgrammingError
from psycopg.pq import TransactionStatus
from psycopg.rows import Row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from psycopg.abc import Params, PQGen, Query

    from promptpipe.storage.postgres.driver.connection import Connection
    from promptpipe.storage.postgres.driver.pipeline import Pipeline

_OPEN = {TransactionStatus.INTRANS, TransactionStatus.INERROR}


class Transaction(AsyncTransaction):
    """A `psycopg.AsyncTransaction` that spares round trips.

    BEGIN is left to the first statement, which sends it in front of itself; of a block without statements the server
    never hears. In a pipeline, COMMIT is sent behind the last statement without waiting for its result.
    """

    _conn: Connection[Any]

    def __init__(self, *psycopg_has: Any, mode: str) -> None:
        super().__init__(*psycopg_has)
        self._mode = mode

    def _get_enter_commands(self) -> Iterator[bytes]:
        if self._outer_transaction and self._conn.autocommit and not self._savepoint_name:
            begin = f"BEGIN {self._mode}".encode() if self._mode else self._conn._get_tx_start_command()  # noqa: SLF001
            self._conn.begin_later = begin
            return iter(())
        if self._mode:
            raise ProgrammingError("only a transaction that is begun here has a mode")
        return super()._get_enter_commands()

    def _get_commit_commands(self) -> Iterator[bytes]:
        return super()._get_commit_commands() if self._has_begun() else iter(())

    def _get_rollback_commands(self) -> Iterator[bytes]:
        return super()._get_rollback_commands() if self._has_begun() else iter(())

    def _has_begun(self) -> bool:
        """Return whether the server knows of this block, which ends; if not, it never will."""
        begun = not self._conn.begin_later
        self._conn.begin_later = b""
        return begun

    def _enter_gen(self) -> PQGen[None]:
        yield from super()._enter_gen()
        if pipeline := self._conn._pipeline:  # noqa: SLF001
            yield from pipeline.settle_gen()

    def _exit_gen(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> PQGen[bool]:
        pipeline = self._conn._pipeline  # noqa: SLF001
        if not pipeline:
            return (yield from super()._exit_gen(exc_type, exc_val, exc_tb))
        if exc_val or self.force_rollback:
            return (yield from self._roll_back_gen(pipeline, exc_val))
        if any(pipeline.result_queue):
            # Answered before COMMIT is executed: a cancellation must know which of them is running.
            pipeline.command_queue.append(self.pgconn.send_flush_request)
        yield from super()._exit_gen(None, None, None)
        try:
            yield from pipeline.settle_gen()
        except Error as error:
            # The server has skipped COMMIT with everything else that followed the error.
            if self.pgconn.transaction_status in _OPEN:
                self._conn._num_transactions += 1  # noqa: SLF001  the block has not ended after all
                yield from self._roll_back_gen(pipeline, error)
            raise
        return False

    def _roll_back_gen(self, pipeline: Pipeline, reason: BaseException | None) -> PQGen[bool]:
        """Wait for what is running, so that its failure does not take ROLLBACK with it, and roll back."""
        failure = None
        try:
            yield from pipeline.settle_gen()
        except Error as error:
            failure = error
        swallow = yield from super()._exit_gen(type(reason) if reason else None, reason, None)
        with suppress(Error):
            yield from pipeline.settle_gen()
        if failure and not reason:
            raise failure
        return swallow


class Cursor(AsyncCursor[Row]):
    """A `psycopg.AsyncCursor` whose statement may begin a transaction."""

    __slots__ = ()

    _conn: Connection[Any]

    def _execute_gen(
        self,
        query: Query,
        params: Params | None = None,
        *,
        prepare: bool | None = None,
        binary: bool | None = None,
    ) -> PQGen[None]:
        statement = super()._execute_gen(query, params, prepare=prepare, binary=binary)
        # One without parameters may be several, which cannot share a round trip with BEGIN.
        return self._conn.begin_with_gen(statement) if params and self._conn.begin_later else statement
