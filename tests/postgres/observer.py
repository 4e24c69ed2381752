"""Looking at a server from outside, through psycopg's own blocking connection."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import trio

from tests.support.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from typing import Self

    from promptpipe.storage.postgres.driver import Connection


SOON = 1.0
"""Seconds: ten times what is promised."""


class Observer:
    """Knows what the server knows."""

    def __init__(self, connection: psycopg.Connection, application: str) -> None:
        self._connection = connection
        self._application = application

    @classmethod
    @contextmanager
    def open(cls, url: str, application: str = "") -> Iterator[Self]:
        with psycopg.connect(url, autocommit=True) as connection:
            yield cls(connection, application)

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        cursor = self._connection.execute(query.encode(), parameters)
        return cursor.fetchall() if cursor.description else []

    def value(self, query: str, *parameters: object) -> Any:
        """Return the only value of the only row."""
        [(value,)] = self.rows(query, *parameters)
        return value

    def running(self) -> int:
        """Count what this test's connections are executing."""
        count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND state = 'active'"
        return int(self.value(count, self._application))

    def backends(self) -> int:
        """Count this test's connections as the server sees them."""
        return int(self.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", self._application))

    async def wait_running(self, number: int = 1) -> None:
        """Wait until so many queries of this test run."""
        await eventually(lambda: self.running() == number)

    async def wait_backends(self, number: int) -> None:
        """Wait until the server has so many connections of this test."""
        await eventually(lambda: self.backends() == number)


async def assert_sound(connection: Connection[Any]) -> None:
    """Fail unless *connection* is idle and answers what it is asked."""
    assert connection.usable()
    assert await (await connection.execute("SELECT 41 + %s", [1])).fetchone() == (42,)
    assert connection.usable()


@asynccontextmanager
async def canceled_when_running(observer: Observer) -> AsyncIterator[None]:
    """Cancel the body as soon as the server is busy with it; it must end soon after, canceled."""
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:  # noqa: ASYNC100  the body has them
            at = 0.0

            async def cancel() -> None:
                nonlocal at
                await observer.wait_running()
                at = trio.current_time()
                scope.cancel()

            nursery.start_soon(cancel)
            yield
        assert scope.cancelled_caught
        assert trio.current_time() - at < SOON
