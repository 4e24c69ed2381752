"""A store for code that cannot await: Trio runs in a thread beside it."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial
from queue import Queue
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from tests.support.database import running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.support.database import Database

T = TypeVar("T")


class Portal:
    """Runs coroutines on the store's Trio and waits for them."""

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        self._token = token

    def __call__(self, function: Callable[..., Awaitable[T]], *arguments: Any, **options: Any) -> T:
        """Await *function* there, and return what it returns."""
        return trio.from_thread.run(partial(function, *arguments, **options), trio_token=self._token)


@contextmanager
def opened(make: Callable[[], Database]) -> Iterator[tuple[Database, Portal]]:
    """Give an open database and the way to its store."""
    ready: Queue[tuple[Database, trio.lowlevel.TrioToken, trio.Event] | BaseException] = Queue()

    async def serve() -> None:
        async with running(make()) as database:
            end = trio.Event()
            ready.put((database, trio.lowlevel.current_trio_token(), end))
            await end.wait()

    def run() -> None:
        try:
            trio.run(serve)
        except BaseException as error:  # noqa: ASYNC103, BLE001  the other thread waits for it
            ready.put(error)

    thread = threading.Thread(target=run)
    thread.start()
    first = ready.get()
    if isinstance(first, BaseException):
        raise first
    database, token, end = first
    try:
        yield database, Portal(token)
    finally:
        token.run_sync_soon(end.set)
        thread.join()
