"""Tasks that work off what is due: as many as there is work at the same time, each for one piece after the other."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

IN_A_ROW = 16
"""Pieces that one task does before it lets others run, even if none of them ever waits."""


class Crew(Generic[T]):
    """Does each piece of work in a task that does nothing else meanwhile.

    Starting a task, and entering a cancel scope, cost more than much of the work does, so they stay. A task that takes
    a piece calls another if more is there: work that never waits is done by one of them, work that waits by as many as
    there are pieces. *work* is given a piece and the scope it runs in, which may be canceled while it does.
    """

    def __init__(self, work: Callable[[T, trio.CancelScope], Awaitable[None]]) -> None:
        self._work = work
        self._todo: deque[T] = deque()
        self._idle: list[trio.Event] = []
        self._called = False
        self._dismissed = False

    def do(self, piece: T, nursery: trio.Nursery) -> None:
        """Have *piece* done, in the order of calls, by a task of *nursery* if a new one is needed."""
        self._todo.append(piece)
        self._call_another(nursery)

    def dismiss(self) -> None:
        """Let tasks end once nothing is left to do."""
        self._dismissed = True
        for event in self._idle:
            event.set()
        self._idle.clear()

    def _call_another(self, nursery: trio.Nursery) -> None:
        if not self._todo or self._called:
            return
        self._called = True
        if self._idle:
            self._idle.pop().set()
        else:
            nursery.start_soon(self._serve, nursery)

    async def _serve(self, nursery: trio.Nursery) -> None:
        while True:
            self._called = False
            while self._todo:
                with trio.CancelScope() as scope:
                    await self._serve_until_canceled(scope, nursery)
            if self._dismissed:
                return
            event = trio.Event()
            self._idle.append(event)
            await event.wait()

    async def _serve_until_canceled(self, scope: trio.CancelScope, nursery: trio.Nursery) -> None:
        done = 0
        while self._todo and not scope.cancel_called:
            piece = self._todo.popleft()
            self._call_another(nursery)
            await self._work(piece, scope)
            done += 1
            if done % IN_A_ROW == 0:
                await trio.lowlevel.checkpoint()
