"""Connections that read beside the writer, each on a thread of Trio's while it is used."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Protocol, TypeVar

import trio

from promptpipe.storage.sqlite.writer import as_unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptpipe.storage.sqlite.writer import Connect

T = TypeVar("T")

READERS = 4


class Readers(Protocol):
    """Runs functions on consistent snapshots."""

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Return the result of *function* on a snapshot; raise `StoreUnavailableError` when there is none to be had."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class ThreadReaders:
    """The `Readers` of a running service: a few connections, opened as needed."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._idle: list[sqlite3.Connection] = []
        self._slots = trio.CapacityLimiter(READERS)

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """See `Readers.run`."""
        return await trio.to_thread.run_sync(self._run, function, limiter=self._slots)

    async def close(self) -> None:
        """See `Readers.close`."""
        await trio.lowlevel.checkpoint()
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def _run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._idle.pop() if self._idle else self._connect()
        try:
            result = read_snapshot(connection, function)
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return result


def read_snapshot(connection: sqlite3.Connection, function: Callable[[sqlite3.Connection], T]) -> T:
    """Return the result of *function* in a read transaction of *connection*."""
    try:
        connection.execute("BEGIN")
        try:
            return function(connection)
        finally:
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise as_unavailable(error) or error from error
