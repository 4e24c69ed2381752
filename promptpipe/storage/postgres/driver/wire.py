"""A connection's socket as Trio waits for it.

psycopg speaks to the server in generators that yield what they wait for (readable, writable, either) and are sent what
the socket is. Here they are run. One that was interrupted while it waited can be run again and goes on where it was:
it is told "not ready yet", and yields what it waits for once more.
"""

from __future__ import annotations

import select
from time import monotonic
from typing import TYPE_CHECKING, TypeVar, cast

import trio
from psycopg import OperationalError
from psycopg.waiting import Ready, Wait, _ready
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, notify_closing, wait_readable, wait_writable

if TYPE_CHECKING:
    from psycopg.abc import PQGen, PQGenConn
    from psycopg.pq.abc import PGconn

T = TypeVar("T")

MAX_BUSY_SECONDS = 0.005
"""How long the driver may go on without giving other tasks a turn."""

_CLOSED = (OSError, trio.ClosedResourceError)


class _Turns:
    """When a task of the driver last got its turn back from Trio: one instant for all connections, for they add up."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = 0.0


_turns = _Turns()


class Wire:
    """Runs psycopg's generators on one connection. It must not be used by two tasks at a time."""

    __slots__ = ("_either", "_pgconn")

    def __init__(self, pgconn: PGconn) -> None:
        self._pgconn = pgconn
        self._either: select.epoll | None = None

    async def run(self, generator: PQGen[T], *, look_first: bool = False) -> T:
        """Return the result of *generator*; what it raises is raised.

        With *look_first* the socket is looked at before waiting, so that even a deadline of now finds what is there.
        Raise `OperationalError` when the connection is closed meanwhile.
        """
        descriptor = self._pgconn.socket
        try:
            wanted = next(generator)
            while True:
                if wanted == Wait.R and not look_first:
                    await wait_readable(descriptor)
                    _turns.last = monotonic()
                    wanted = generator.send(Ready.R)
                    continue
                # Nearly always it can be written at once, and asking costs a tenth of a turn of the event loop.
                if monotonic() - _turns.last >= MAX_BUSY_SECONDS:
                    await (cancel_shielded_checkpoint if look_first else checkpoint)()
                    _turns.last = monotonic()
                ready = _ready(descriptor, wanted)
                if not ready:
                    await self._wait(descriptor, wanted)
                    _turns.last = monotonic()
                    ready = _ready(descriptor, wanted)
                wanted = generator.send(ready)
        except StopIteration as end:
            if monotonic() - _turns.last >= MAX_BUSY_SECONDS:  # a long COPY out of libpq's buffer never waits
                await cancel_shielded_checkpoint()
                _turns.last = monotonic()
            return cast("T", end.value)
        except _CLOSED as error:
            raise OperationalError("the connection was closed") from error

    async def _wait(self, descriptor: int, wanted: Wait) -> None:
        if wanted == Wait.R:
            await wait_readable(descriptor)
        elif wanted == Wait.W:
            await wait_writable(descriptor)
        else:
            # Rare: the send buffer is full. Two tasks in a nursery would do, but turn a cancellation into a group of
            # two, which no `except trio.Cancelled` on its way catches.
            if self._either is None:
                self._either = select.epoll()
                self._either.register(descriptor, select.EPOLLIN | select.EPOLLOUT)
            await wait_readable(self._either.fileno())

    def readable(self) -> bool:
        """Return whether something has arrived that has not been read."""
        return bool(_ready(self._pgconn.socket, Wait.R))

    def close(self) -> None:
        """Close the connection; a task that waits for it is told by `OperationalError`."""
        if self._either is not None:
            notify_closing(self._either.fileno())
            self._either.close()
            self._either = None
        notify_closing(self._pgconn.socket)
        self._pgconn.finish()


async def run_connecting(generator: PQGenConn[T]) -> T:
    """Return the result of *generator*, one that opens a connection and may change its socket on the way.

    Raise `OperationalError` when the server does not let us in. An interrupted attempt is closed at once.
    """
    try:
        descriptor, wanted = next(generator)
        while True:
            await (wait_readable if wanted == Wait.R else wait_writable)(descriptor)
            descriptor, wanted = generator.send(Ready(wanted))
    except StopIteration as end:
        return cast("T", end.value)
    except _CLOSED as error:
        raise OperationalError("the connection was closed") from error
    finally:
        generator.close()
