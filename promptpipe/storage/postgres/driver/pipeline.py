"""Pipelines: psycopg's own, which send statements together and wait no more often than they must."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from psycopg import AsyncPipeline, Error, OperationalError
from psycopg.generators import send
from psycopg.pq import ConnStatus, ExecStatus
from trio.abc import Instrument
from trio.lowlevel import RunVar, add_instrument

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg._pipeline_base import PendingResult
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult

MAX_UNSENT = 32
"""Statements that are kept back, at most."""


class _Sender(Instrument):
    """Sends what pipelines have kept back when the event loop has run all that can run and is about to wait."""

    def __init__(self) -> None:
        self.waiting: list[Pipeline] = []

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002  the interface has it
        if self.waiting:
            for pipeline in self.waiting:
                pipeline.send()
            self.waiting.clear()


_sender: RunVar[_Sender] = RunVar("promptpipe.storage.postgres.driver.pipeline")


def _sender_of_this_run() -> _Sender:
    try:
        return _sender.get()
    except LookupError:
        sender = _Sender()
        _sender.set(sender)
        add_instrument(sender)
        return sender


class Pipeline(AsyncPipeline):
    """A `psycopg.AsyncPipeline` that spares system calls and round trips.

    psycopg sends every statement by itself, which is half of what a small one costs. Here they are kept in libpq's
    buffer (which sends all but the last 8 kB at once) until a result is asked for, the pipeline is synchronized, some
    have come together, or, when none of this happens, the event loop has nothing else to do. And psycopg synchronizes
    at every beginning and end of a block; here only if something was sent since the last time.
    """

    def __init__(self, connection: AsyncConnection[Any], *, has_lock: bool = False) -> None:
        super().__init__(connection, has_lock)
        self._unsent = 0
        self._synchronizing = False
        self._synchronized = True

    @property
    def settled(self) -> bool:
        """Whether nothing was executed since the last synchronization. libpq knows the transaction's status only then.

        When all results have been read but none was a synchronization's, it still tells the status from before.
        """
        return self._synchronized and not self.result_queue and not self.command_queue

    def settle_gen(self) -> PQGen[None]:
        """Synchronize unless that is done; raise the first error of what was executed before."""
        if not self.settled:
            yield from self._sync_gen()

    def run_gen(self, statement: PQGen[None]) -> PQGen[None]:
        """Begin the pipeline, run *statement* in it and end it."""
        yield from self._enter_gen()
        self._unsent = 1  # it is sent below at the latest: the sender need not care
        try:
            try:
                yield from statement
            except Exception:
                with suppress(Error):
                    yield from self.settle_gen()
                raise
            yield from self.settle_gen()
        finally:
            self._exit(None)

    def _enter_gen(self) -> PQGen[None]:
        if self.level:
            yield from self.settle_gen()
            self.level += 1
        else:
            yield from super()._enter_gen()

    def _exit_gen(self) -> PQGen[None]:
        return self.settle_gen()

    def _enqueue_sync(self) -> None:
        self._synchronizing = True
        super()._enqueue_sync()

    def _communicate_gen(self) -> PQGen[None]:
        if not self._synchronizing and self._unsent >= MAX_UNSENT:
            self._unsent = 0
            yield from super()._communicate_gen()
            return
        while self.command_queue:
            self.command_queue.popleft()()
        if self._synchronizing:
            self._synchronizing = False
            self._unsent = 0
            yield from send(self.pgconn)
        else:
            if not self._unsent:
                _sender_of_this_run().waiting.append(self)
            self._unsent += 1

    def _process_results(self, queued: PendingResult, results: list[PGresult]) -> None:
        self._synchronized = results[0].status == ExecStatus.PIPELINE_SYNC
        super()._process_results(queued, results)

    def send(self) -> None:
        """Send what has been kept back, as far as the socket takes it."""
        self._unsent = 0
        if self.pgconn.status == ConnStatus.OK:
            with suppress(OperationalError):  # whoever waits for a result will be told
                self.pgconn.flush()
