"""Waking the runner whose work a commit made due."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptpipe.model.leases import Work


class Wakeups:
    """Passes the store's word of new work to the runner of its kind. Runners poll besides."""

    def __init__(self) -> None:
        self._callbacks: dict[Work, Callable[[], bool]] = {}

    def subscribe(self, work: Work, callback: Callable[[], bool]) -> None:
        """Call *callback* whenever a commit made some of *work* due; it returns whether the runner is free for it."""
        self._callbacks[work] = callback

    def __call__(self, work: Work) -> bool:
        """Wake the runner of *work*; return whether there is one that is free for it."""
        callback = self._callbacks.get(work)
        return callback() if callback is not None else False
