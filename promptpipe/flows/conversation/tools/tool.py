"""What a tool is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptpipe.flows.conversation.turn import Turn
    from promptpipe.model.chat import Tool


class ToolError(Exception):
    """A model wanted something that cannot be done; the text tells it why."""


class CoachTool(Protocol):
    """A tool of the coach's."""

    @property
    def tool(self) -> Tool:
        """What a model is told of it."""
        ...

    async def use(self, arguments: Mapping[str, object], turn: Turn) -> Mapping[str, object]:
        """Do what *arguments* ask for, as part of *turn*, and return what a model is told; raise `ToolError`."""
        ...


def parsed(arguments: str) -> Mapping[str, object]:
    """Return the arguments that a model wrote; raise `ToolError` when they are no JSON object."""
    try:
        values = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        raise ToolError("the arguments are not JSON") from None
    if not isinstance(values, dict):
        raise ToolError("the arguments are not a JSON object")
    return values


def to_json(result: Mapping[str, object]) -> str:
    """Return what a model is told of a tool's result."""
    return json.dumps(result, ensure_ascii=False)


def text(arguments: Mapping[str, object], name: str) -> str:
    """Return an argument that is a text, trimmed; empty when there is none."""
    value = arguments.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ToolError(f"{name} must be a string")
    return value.strip()


def number(arguments: Mapping[str, object], name: str) -> float | None:
    """Return an argument that is a number; None when there is none."""
    value = arguments.get(name)
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ToolError(f"{name} must be a number") from None
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < float("inf"):
        raise ToolError(f"{name} must be a number")
    return float(value)


def one_of(arguments: Mapping[str, object], name: str, *allowed: str) -> str:
    """Return an argument that is one of *allowed*, whatever its case."""
    value = text(arguments, name)
    for choice in allowed:
        if value.casefold() == choice.casefold():
            return choice
    raise ToolError(f"{name} must be one of: {', '.join(allowed)}")
