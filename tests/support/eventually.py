"""Waiting for what another process or task does, without guessing how long it takes."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LOOK_AGAIN_SECONDS = 0.01


async def eventually(condition: Callable[[], bool | Awaitable[bool]], *, within: float = 20.0) -> None:
    """Return as soon as *condition* holds; fail when it does not within *within* seconds."""
    with trio.move_on_after(within):
        while True:
            holds = condition()
            if await holds if inspect.isawaitable(holds) else holds:
                return
            await trio.sleep(LOOK_AGAIN_SECONDS)
    raise AssertionError(f"not within {within} s: {_shown(condition)}")


def _shown(condition: Callable[[], object]) -> str:
    try:
        return inspect.getsource(condition).strip()
    except TypeError:
        return repr(condition)
