"""Ports that end the process at a chosen call: `store.mailboxes.decide:after:2` is the end of the second one."""

from __future__ import annotations

import inspect
import os
import signal
from typing import TYPE_CHECKING, Any

from promptpipe.model.leases import Claimed
from promptpipe.model.messages import Departure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Killer:
    """Counts the passages of one point, and at the nth kills the process, or raises if it is to *throw*."""

    def __init__(self, point: str, *, throw: bool = False) -> None:
        self._point, _, count = point.rpartition(":")
        self._left = int(count)
        self._throw = throw

    def passed(self, point: str) -> None:
        """End the process if it is time."""
        if point != self._point:
            return
        self._left -= 1
        if self._left == 0:
            if self._throw:
                raise RuntimeError(f"thrown at {point}")
            os.kill(os.getpid(), signal.SIGKILL)


class Mortal:
    """Wraps a port: every asynchronous call passes `<name>:before` and `<name>:after`, and so do those of its parts.

    A claim that hands out nothing passes no `after`.
    """

    def __init__(self, inner: object, name: str, killer: Killer) -> None:
        self._inner = inner
        self._name = name
        self._killer = killer

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._inner, attribute)
        name = f"{self._name}.{attribute}"
        if attribute == "send":
            return self._sending(value, name)
        if inspect.iscoroutinefunction(value):
            return self._wrapped(value, name)
        if type(value).__module__.startswith("promptpipe.storage"):
            return Mortal(value, name, self._killer)
        return value

    def _wrapped(self, call: Callable[..., Awaitable[object]], name: str) -> Callable[..., Awaitable[object]]:
        async def mortal_call(*args: object, **kwargs: object) -> object:
            self._killer.passed(f"{name}:before")
            result = await call(*args, **kwargs)
            if not isinstance(result, Claimed) or result.items or result.suspect is not None:
                self._killer.passed(f"{name}:after")
            return result

        return mortal_call

    def _sending(self, send: Callable[..., Awaitable[object]], name: str) -> Callable[..., Awaitable[object]]:
        async def mortal_send(order: object, departure: Departure) -> object:
            self._killer.passed(f"{name}:before")
            result = await send(order, _MortalDeparture(departure, f"{name}:departing", self._killer))
            self._killer.passed(f"{name}:after")
            return result

        return mortal_send


class _MortalDeparture(Departure):
    def __init__(self, inner: Departure, point: str, killer: Killer) -> None:
        super().__init__()
        self._inner = inner
        self._point = point
        self._killer = killer

    def note(self) -> None:
        self._inner.note()
        self._killer.passed(self._point)
