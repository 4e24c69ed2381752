"""A bounded pool of connections."""

from __future__ import annotations

import logging
import random
from collections import deque
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import trio
from psycopg import Error, ProgrammingError
from psycopg.pq import TransactionStatus
from trio.lowlevel import ParkingLot, checkpoint_if_cancelled

from promptpipe.storage.postgres.driver.connection import Connection
from promptpipe.storage.postgres.driver.errors import PoolClosedError, PoolTimeoutError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from types import TracebackType
    from typing import Self

    Configure: TypeAlias = Callable[[Connection[Any]], Awaitable[object]]

logger = logging.getLogger(__name__)

AGE_JITTER = 0.2
"""The part of their greatest age that chance takes from connections, so that they are not renewed all at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """A pool at one moment; `connects`, `failures` and `waited_seconds` count from its beginning."""

    open: int
    """Connections, idle or in use."""

    idle: int
    in_use: int

    waiting: int
    """Tasks that wait for a connection to come back."""

    connects: int
    """Connections that were opened."""

    failures: int
    """Attempts to open and configure one that failed; canceled ones are not counted."""

    waited_seconds: float
    """How long tasks have waited for a connection to come back, all together."""


@dataclass(slots=True, eq=False)
class _Member:
    """A connection of the pool."""

    connection: Connection[Any]
    expires: float
    idle_since: float = 0.0


class Pool:
    """Up to *size* connections, opened when they are needed and handed out again, the one that came back last first.

    Those who wait are served in the order they came. A connection is looked at before it is handed out, without asking
    the server; one that is broken, older than about *max_age* seconds (a fifth less at random) or idle for more than
    *max_idle* seconds is closed and replaced. It is given back as it is: what was done to the session (settings,
    LISTEN, advisory locks) is its next user's to find, so do nothing to it but in *configure*, which is awaited with
    each new connection. There are no background tasks: idle connections are looked at when others come and go.

    *options* are `Connection.connect`'s. Use the pool as a context manager, or `close` it.
    """

    def __init__(
        self,
        conninfo: str = "",
        *,
        size: int,
        wait_seconds: float = 30.0,
        max_age: float = 3600.0,
        max_idle: float = 600.0,
        configure: Configure | None = None,
        chance: Callable[[], float] = random.random,  # noqa: S311  nothing to guess here
        **options: Any,
    ) -> None:
        if size < 1:
            raise ValueError(f"a pool has at least one connection, not {size}")
        self.size = size
        self._conninfo = conninfo
        self._wait_seconds = wait_seconds
        self._max_age = max_age
        self._max_idle = max_idle
        self._configure = configure
        self._chance = chance
        self._options = options
        self._free_places = size
        self._waiting = ParkingLot()
        self._idle: deque[_Member] = deque()
        self._in_use: set[_Member] = set()
        self._connecting: set[trio.CancelScope] = set()
        self._closed = False
        self._all_back = trio.Event()
        self._connects = 0
        self._failures = 0
        self._waited_seconds = 0.0

    @property
    def statistics(self) -> PoolStatistics:
        """Return how the pool is doing."""
        return PoolStatistics(
            open=len(self._idle) + len(self._in_use),
            idle=len(self._idle),
            in_use=len(self._in_use),
            waiting=len(self._waiting),
            connects=self._connects,
            failures=self._failures,
            waited_seconds=self._waited_seconds,
        )

    @asynccontextmanager
    async def connection(self, *, wait_seconds: float | None = None) -> AsyncIterator[Connection[Any]]:
        """Lend a connection. A transaction left open is committed at the end, or rolled back after an exception.

        Raise `PoolTimeoutError` when there is none within *wait_seconds* (the pool's, if not given; opening a new one
        counts), `PoolClosedError`, or what `Connection.connect` and *configure* raise: a server that refuses is not
        waited for.
        """
        member = await self._take(self._wait_seconds if wait_seconds is None else wait_seconds)
        connection = member.connection
        try:
            try:
                yield connection
            except BaseException:
                if connection.pgconn.transaction_status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}:
                    with suppress(Error):
                        await connection.rollback()  # noqa: ASYNC102  it shields itself
                raise
            if connection.pgconn.transaction_status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}:
                await connection.commit()
        finally:
            self._give_back(member)

    async def close(self, *, grace: float = 5.0) -> None:
        """Lend nothing more, wait *grace* seconds for what is lent, and close all connections, in use or not.

        Those who wait for a connection get `PoolClosedError`; those who still use one, `OperationalError`. Canceled, it
        closes them at once.
        """
        self._closed = True
        self._waiting.unpark_all()
        for scope in self._connecting:
            scope.cancel()
        while self._idle:
            self._idle.pop().connection.abandon()
        try:
            if self._in_use:
                with trio.move_on_after(grace):
                    await self._all_back.wait()
        finally:
            for member in self._in_use:
                logger.warning("the pool is closed: closing a connection that is in use")
                member.connection.abandon()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()  # noqa: ASYNC102  canceled, it closes them at once

    async def _take(self, seconds: float) -> _Member:
        await checkpoint_if_cancelled()
        with trio.move_on_after(seconds):
            await self._take_place()
            try:
                member = self._find_idle() or await self._open()
            except BaseException:
                self._leave_place()
                raise
            self._in_use.add(member)
            return member
        raise PoolTimeoutError(f"no connection within {seconds} s, {len(self._in_use)} of {self.size} are in use")

    def _give_back(self, member: _Member) -> None:
        self._in_use.discard(member)
        now = trio.current_time()
        if not self._closed and now < member.expires and member.connection.usable():
            member.idle_since = now
            self._idle.append(member)
        else:
            member.connection.abandon()
        self._close_idle(now)
        self._leave_place()
        if self._closed and not self._in_use:
            self._all_back.set()

    async def _take_place(self) -> None:
        """Take one of the pool's places, in turn. Whoever leaves one hands it to the first who waits."""
        if self._closed:
            raise PoolClosedError("the pool is closed")
        if self._free_places:
            self._free_places -= 1
            return
        began = trio.current_time()
        try:
            await self._waiting.park()
        finally:
            self._waited_seconds += trio.current_time() - began
        if self._closed:
            raise PoolClosedError("the pool is closed")

    def _leave_place(self) -> None:
        if self._waiting:
            self._waiting.unpark()
        else:
            self._free_places += 1

    def _find_idle(self) -> _Member | None:
        now = trio.current_time()
        self._close_idle(now)
        while self._idle:
            member = self._idle.pop()
            if now < member.expires and member.connection.usable():
                return member
            member.connection.abandon()
        return None

    def _close_idle(self, now: float) -> None:
        """Close what has been idle for too long; the one that came back first is at the left."""
        while self._idle and now - self._idle[0].idle_since > self._max_idle:
            self._idle.popleft().connection.abandon()

    async def _open(self) -> _Member:
        """Open and configure a connection; raise `PoolClosedError` when the pool is closed meanwhile."""
        with trio.CancelScope() as scope:
            self._connecting.add(scope)
            try:
                return await self._connect()
            except Exception:
                self._failures += 1
                raise
            finally:
                self._connecting.discard(scope)
        raise PoolClosedError("the pool is closed")

    async def _connect(self) -> _Member:
        connection: Connection[Any] = await Connection.connect(self._conninfo, **self._options)
        try:
            if self._configure is not None:
                await self._configure(connection)
        except BaseException:
            connection.abandon()
            raise
        if not connection.usable():
            connection.abandon()
            raise ProgrammingError("`configure` left the connection in a transaction, or broken")
        self._connects += 1
        expires = trio.current_time() + self._max_age * (1 - AGE_JITTER * self._chance())
        return _Member(connection, expires)
