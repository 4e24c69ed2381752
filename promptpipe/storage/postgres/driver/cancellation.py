"""What cancellation does to a connection: what runs to its end all the same, and how the rest is ended."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio
from psycopg import AsyncConnection, capabilities, generators
from psycopg import errors as e
from psycopg._connection_base import BaseConnection
from psycopg._cursor_base import BaseCursor
from psycopg._preparing import Prepare
from psycopg._server_cursor_base import ServerCursorMixin
from psycopg.pq import ExecStatus, PipelineStatus, TransactionStatus
from psycopg.rows import Row
from trio.lowlevel import checkpoint_if_cancelled, enable_ki_protection

from promptpipe.storage.postgres.driver.lock import ConversationLock
from promptpipe.storage.postgres.driver.pipeline import Pipeline
from promptpipe.storage.postgres.driver.statements import PreparedStatements
from promptpipe.storage.postgres.driver.transaction import Cursor, Transaction
from promptpipe.storage.postgres.driver.wire import Wire, run_connecting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn

T = TypeVar("T")

logger = logging.getLogger(__name__)

ASK_AGAIN_SECONDS = 0.05
"""The pause before a cancel request that showed no effect is repeated; it doubles each time."""

_INTERRUPTIONS = (trio.Cancelled, KeyboardInterrupt)
_AT_REST = {TransactionStatus.IDLE, TransactionStatus.INTRANS, TransactionStatus.INERROR}

_STREAM_BEGIN: Final = BaseCursor._stream_send_gen.__code__  # noqa: SLF001  (all private names: see `internals`)
_COPY_IN_END: Final = generators.copy_end.__code__
_PIPELINE_BEGIN: Final = Pipeline._enter_gen.__code__  # noqa: SLF001

_FINISHED_ALWAYS: Final = frozenset(
    function.__code__
    for function in (
        BaseConnection._commit_gen,  # noqa: SLF001
        BaseConnection._rollback_gen,  # noqa: SLF001
        BaseConnection._tpc_begin_gen,  # noqa: SLF001
        BaseConnection._tpc_prepare_gen,  # noqa: SLF001
        BaseConnection._tpc_finish_gen,  # noqa: SLF001
        Pipeline._enter_gen,  # noqa: SLF001
        Pipeline.settle_gen,
        Transaction._enter_gen,  # noqa: SLF001
        Transaction._exit_gen,  # noqa: SLF001
        ServerCursorMixin._close_gen,  # noqa: SLF001
        generators.copy_end,
    )
)
"""Beginnings and ends of blocks. They run to their end though canceled, or the block would be left half open.

In a pipeline they wait for the statements before them, which are canceled then.
"""


class CancelableConnection(AsyncConnection[Row]):
    """The part of `Connection` that waits for the server; its promises are written there."""

    cleanup_seconds: float = 5.0
    """How long clean-up may take once canceled, before the connection is closed instead."""

    _pipeline: Pipeline | None

    def __init__(self, pgconn: PGconn, *args: Any, **kwargs: Any) -> None:
        super().__init__(pgconn, *args, **kwargs)
        self._wire = Wire(pgconn)
        self._prepared = PreparedStatements()
        self.cursor_factory = Cursor
        self._streamed = False
        self.begin_later = b""
        """What begins the transaction block that has been entered, if the server has not been told yet."""

        self.lock = ConversationLock(pgconn, self._wire)  # type: ignore[assignment]  # psycopg only enters and leaves it

    @enable_ki_protection
    async def wait(  # everything that psycopg does goes through here
        self,
        gen: PQGen[T],
        interval: float = 0.0,  # noqa: ARG002  for event loops that must be woken for signals
        timeout: float | None = None,  # noqa: ASYNC109  as psycopg has it
    ) -> T:
        """Run one of psycopg's generators on this connection; raise `psycopg.errors._WaitTimeout` after *timeout* s."""
        code = getattr(gen, "gi_code", None)
        if code in _FINISHED_ALWAYS:
            if code is _PIPELINE_BEGIN and self._streamed:
                self._streamed = False
                gen = self._reset_row_mode(gen)
            elif code is _COPY_IN_END and self.pgconn.transaction_status in _AT_REST:
                raise e.QueryCanceled("the COPY was canceled before")  # as psycopg expects of the end of one that fails
            return await self._finish(gen)
        if code is _STREAM_BEGIN:
            self._streamed = True
        started = False
        try:
            await checkpoint_if_cancelled()
            started = True
            if timeout is None:
                return await self._wire.run(gen)
            with trio.move_on_after(timeout):
                return await self._wire.run(gen, look_first=True)
            raise e._WaitTimeout("wait timeout expired")  # noqa: SLF001
        except _INTERRUPTIONS:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                await self._abort(gen, started=started)  # noqa: ASYNC120  it shields itself
            raise

    def _reset_row_mode(self, begin: PQGen[T]) -> PQGen[T]:
        """Make libpq forget that the last query was to return row by row, and *begin* a pipeline.

        It does when the next one is sent, but not within a pipeline: there, the first after a stream returns row by row
        too, and psycopg fails ("unexpected result status from query: SINGLE_TUPLE"; libpq 15 and 18, psycopg 3.3.9).
        """
        self.pgconn.send_query(b"")
        yield from generators.execute(self.pgconn)
        return (yield from begin)

    async def _finish(self, generator: PQGen[T]) -> T:
        """Run the beginning or end of a block to its end, though canceled; cancel the statements it waits for then."""
        try:
            return await self._wire.run(generator)
        except _INTERRUPTIONS as interruption:
            finish = partial(self._wire.run, generator)
            in_pipeline = self.pgconn.pipeline_status != PipelineStatus.OFF
            with self._cleanup():
                try:
                    result = await (self._cancel_until(finish, at_once=False) if in_pipeline else finish())  # noqa: ASYNC120
                except (e.QueryCanceled, e.PipelineAborted):
                    raise interruption from None
                if isinstance(interruption, trio.Cancelled):
                    return result  # it is done; the next checkpoint raises again
                raise
            self._break("the end of a block did not come")
            raise

    async def _abort(self, generator: PQGen[Any], *, started: bool) -> None:
        """Cancel the running query in the server and get rid of its results."""
        in_pipeline = self.pgconn.pipeline_status != PipelineStatus.OFF
        if in_pipeline and not started:
            return  # the end of the pipeline does it
        with self._cleanup():
            if in_pipeline:
                # Left where it is, it would take results with it that psycopg counts on. The error of what is canceled
                # ends it, also a batch that could go on.
                with suppress(e.Error):
                    await self._cancel_until(partial(self._wire.run, generator), at_once=True)
            else:
                # Run to its end it would send more (what follows a BEGIN or a PREPARE), so it is left where it is.
                with suppress(e.Error):
                    await self._cancel_until(self._discard_results, at_once=True)
            return
        self._break("a canceled query did not end")

    async def _cancel_until(self, done: Callable[[], Awaitable[T]], *, at_once: bool) -> T:
        """Ask the server to cancel what is running until *done*, begun anew each time, comes to its end.

        Not *at_once*, it has a moment to come by itself. A COMMIT in a pipeline is not canceled at all: one that waits
        for a standby would then be done here and nowhere else, and look as if it were done everywhere.

        Once is not always enough. The server forgets a request that arrives before it has read the query (a long one
        may be half sent), and in a pipeline the next query may begin. Nor can it be too often: a request has taken
        effect when its answer comes, so none is left for a query that is sent after.
        """
        pause = ASK_AGAIN_SECONDS
        if at_once:
            await self._ask()
        while True:
            with trio.move_on_after(pause):
                return await done()
            if at_once or self._statement_runs():
                await self._ask()
            pause *= 2

    def _statement_runs(self) -> bool:
        """Return whether a statement of the pipeline is yet to be answered, and not only what ends its block."""
        return self._pipeline is None or any(self._pipeline.result_queue)

    async def _discard_results(self) -> None:
        """Finish sending, and read what comes until nothing is running any more."""
        pgconn = self.pgconn
        while pgconn.transaction_status == TransactionStatus.ACTIVE:
            await self._wire.run(generators.send(pgconn))
            results = await self._wire.run(generators.fetch_many(pgconn))
            self._prepared._should_discard(Prepare.NO, results)  # noqa: SLF001
            match results[-1].status if results else None:
                case ExecStatus.COPY_IN:
                    pgconn.put_copy_end(b"canceled")
                case ExecStatus.COPY_OUT:
                    while isinstance(await self._wire.run(generators.copy_from(pgconn)), memoryview):
                        pass
                case ExecStatus.COPY_BOTH:
                    self._break("replication cannot be canceled")
        # A statement that had its effect all the same may have made prepared ones useless.
        await self._wire.run(self._prepared.maintain_gen(self))

    async def _ask(self) -> None:
        """Request what a clean-up needs; close the connection when that fails."""
        try:
            await self._request_cancel()
        except e.Error as error:
            self._break(f"the cancel request failed ({error})")
            raise

    async def _request_cancel(self) -> None:
        """Send a cancel request and wait until it has taken effect."""
        if capabilities.has_cancel_safe():
            await run_connecting(self._cancel_gen())
        else:
            await trio.to_thread.run_sync(self.pgconn.get_cancel().cancel, abandon_on_cancel=True)

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:  # noqa: ASYNC109  as psycopg has it
        """Ask the server to cancel what runs on this connection, for another task than the one that waits for it.

        Raise `CancellationTimeout` after *timeout* seconds, and `OperationalError` when the server cannot be asked.
        """
        if self._should_cancel():
            with trio.move_on_after(timeout):
                return await self._request_cancel()
            raise e.CancellationTimeout("cancellation timeout expired")
        return None

    async def _try_cancel(self, *, timeout: float = 5.0) -> None:  # noqa: ASYNC109  as psycopg has it
        """Do what psycopg asks for at the end of a COPY or stream that is left early."""
        with self._cleanup(), suppress(e.Error):
            await self.cancel_safe(timeout=timeout)

    def _cleanup(self) -> trio.CancelScope:
        return trio.CancelScope(shield=True, deadline=trio.current_time() + self.cleanup_seconds)

    def _break(self, reason: str) -> None:
        """Close the connection, because nobody can know what state it is in."""
        if not self.closed:
            logger.warning("%s: closing the connection", reason)
            self._wire.close()
