"""Waking the runners of other instances: notifications after a commit, few, and never relied upon.

A NOTIFY inside a business transaction serializes all commits (measured: inserts of 32 clients fall to a fifth), so it
is sent afterwards, on a connection of its own, for all that was committed within a moment. Runners poll every second
besides.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import structlog
import trio
from psycopg import DatabaseError

from promptpipe.model.leases import Work

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from promptpipe.model.ids import WorkerId
    from promptpipe.storage.postgres.driver import Connection

CHANNEL = "promptpipe_work"

DEBOUNCE_SECONDS = 0.005
"""The shortest time between two notifications of one instance."""

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
"""Seconds between two attempts to connect: doubled each time, and half of it left to chance."""

log = structlog.get_logger(__name__)


class Waking:
    """Tells the others of work that nobody here is free for, and wakes the runners here when they tell of theirs.

    *wake* is told of due work and returns whether a runner of this process is free for it.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection[Any]]],
        worker: WorkerId,
        wake: Callable[[Work], bool],
        chance: Callable[[], float],
    ) -> None:
        self._connect = connect
        self._worker = worker
        self._wake = wake
        self._chance = chance
        self._untold: set[Work] = set()
        self._something_to_tell = trio.Event()

    def committed(self, work: Work) -> None:
        """Note that a commit here made some of *work* due."""
        if not self._wake(work):
            self._untold.add(work)
            self._something_to_tell.set()

    async def run(self) -> None:
        """Listen and tell until canceled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._connected, self._listen)
            nursery.start_soon(self._connected, self._tell)

    async def _connected(self, work: Callable[[Connection[Any]], Awaitable[None]]) -> None:
        """Do *work* on a connection, and on another when that is lost."""
        pause = FIRST_PAUSE
        while True:
            try:
                async with await self._connect() as connection:
                    pause = FIRST_PAUSE
                    await work(connection)
            except (DatabaseError, OSError) as error:
                log.debug("connection for waking lost", reason=str(error))
            await trio.sleep(pause * (1 + self._chance()) / 2)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _listen(self, connection: Connection[Any]) -> None:
        await connection.execute(f"LISTEN {CHANNEL}")
        for work in Work:
            self._wake(work)  # whatever was told while nobody listened
        async with aclosing(connection.notifies()) as notifications:
            async for notification in notifications:
                teller, _, works = notification.payload.partition(":")
                if teller != self._worker:
                    named = works.split(",")  # by anybody: whatever is none of ours is passed over
                    for work in Work:
                        if work.value in named:
                            self._wake(work)

    async def _tell(self, connection: Connection[Any]) -> None:
        while True:
            await self._something_to_tell.wait()
            self._something_to_tell = trio.Event()
            works, self._untold = self._untold, set()
            payload = f"{self._worker}:{','.join(sorted(work.value for work in works))}"
            await connection.execute("SELECT pg_notify(%s, %s)", [CHANNEL, payload])
            await trio.sleep(DEBOUNCE_SECONDS)
