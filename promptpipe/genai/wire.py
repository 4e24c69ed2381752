"""Chats as the API of chat completions has them. Nothing is taken for granted of what comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from promptpipe.model.chat import Generated, Role, ToolCall
from promptpipe.model.errors import GenerationError
from promptpipe.model.text import storable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptpipe.model.chat import ChatMessage, Tool

MAX_TOOL_CALLS = 32
"""Of one answer; what is beyond is no answer to anything."""


def as_messages(messages: Sequence[ChatMessage]) -> list[Any]:
    """Return *messages* as the API takes them."""
    return [_as_message(message) for message in messages]


def _as_message(message: ChatMessage) -> dict[str, object]:
    data: dict[str, object] = {"role": message.role.value, "content": message.content}
    if message.tool_calls:
        data["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.role is Role.TOOL:
        data["tool_call_id"] = message.tool_call_id
    return data


def as_tools(tools: Sequence[Tool]) -> list[Any]:
    """Return *tools* as the API takes them."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
        }
        for tool in tools
    ]


def as_generated(completion: object) -> Generated:
    """Return the first choice of a completion; raise `GenerationError` when there is none."""
    choices = getattr(completion, "choices", None)
    message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
    if message is None:
        raise GenerationError("the model's endpoint answered with something that is no chat completion")
    text = getattr(message, "content", None)
    calls = getattr(message, "tool_calls", None)
    return Generated(
        text=storable(text) if isinstance(text, str) else "",
        tool_calls=tuple(_as_call(n, call) for n, call in enumerate(calls[:MAX_TOOL_CALLS]))
        if isinstance(calls, list)
        else (),
    )


def _as_call(number: int, call: object) -> ToolCall:
    """Return a call; what it lacks is empty, so that whoever runs it says what is wrong."""
    function = getattr(call, "function", None)
    return ToolCall(
        id=_text(getattr(call, "id", None)) or f"call_{number}",
        name=_text(getattr(function, "name", None)),
        arguments=_text(getattr(function, "arguments", None)),
    )


def _text(value: object) -> str:
    return storable(value) if isinstance(value, str) else ""


def usage_of(completion: object) -> tuple[int, int]:
    """Return how many tokens the model has read and written, as far as its endpoint says."""
    usage = getattr(completion, "usage", None)
    counts = (getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens"))
    read, written = (count if isinstance(count, int) and count > 0 else 0 for count in counts)
    return read, written
