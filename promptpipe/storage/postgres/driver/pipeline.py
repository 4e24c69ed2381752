"""Pipelines: psycopg's own, which send statements together."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from psycopg import AsyncPipeline, OperationalError
from psycopg.pq import ConnStatus
from trio.abc import Instrument
from trio.lowlevel import RunVar, add_instrument

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg.abc import PQGen

MAX_UNSENT = 32
"""Statements that are kept back, at most."""

LARGE = 16_384
"""Bytes in a parameter from which a statement is not kept back."""


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
    """A `psycopg.AsyncPipeline` that spares system calls.

    psycopg sends every statement by itself, which is half of what a small one costs. Here they are kept in libpq's
    buffer until a result is asked for, the pipeline is synchronized, some have come together, or, when none of this
    happens, the event loop has nothing else to do.
    """

    def __init__(self, connection: AsyncConnection[Any], *, has_lock: bool = False) -> None:
        super().__init__(connection, has_lock)
        self._sender = _sender_of_this_run()
        self._unsent = 0
        self._synchronizing = False

    def _enqueue_sync(self) -> None:
        self._synchronizing = True
        super()._enqueue_sync()

    def _communicate_gen(self) -> PQGen[None]:
        if self._synchronizing or self._unsent >= MAX_UNSENT or self._is_large():
            self._synchronizing = False
            self._unsent = 0
            yield from super()._communicate_gen()
            return
        if not self._unsent:
            self._sender.waiting.append(self)
        self._unsent += 1
        while self.command_queue:
            self.command_queue.popleft()()

    def _is_large(self) -> bool:
        """Return whether the last statement has much to send."""
        last = self.result_queue[-1] if self.result_queue else None
        query = last and last[0]._query  # noqa: SLF001
        return bool(query and query.params and any(value and len(value) > LARGE for value in query.params))

    def send(self) -> None:
        """Send what has been kept back, as far as the socket takes it."""
        self._unsent = 0
        if self.pgconn.status == ConnStatus.OK:
            with suppress(OperationalError):  # whoever waits for a result will be told
                self.pgconn.flush()
