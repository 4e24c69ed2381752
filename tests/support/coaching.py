"""Language models that do as they are told, and what they were told."""

from __future__ import annotations

import json

from promptpipe.model.chat import Generated, ToolCall
from tests.support.conversing import Conversation
from tests.support.prompting import ScriptedModel


def wishes(*calls: tuple[str, object], text: str = "") -> Generated:
    """Return what a model answers that wants tools used; arguments that are no text are written as JSON."""
    return Generated(
        text=text,
        tool_calls=tuple(
            ToolCall(id=f"c{n}", name=name, arguments=value if isinstance(value, str) else json.dumps(value))
            for n, (name, value) in enumerate(calls)
        ),
    )


def told(model: ScriptedModel, number: int = -1) -> list[tuple[str, str]]:
    """Return what a model was told, one of the times it was asked."""
    return [(message.role.value, message.content) for message in model.asked[number]]


async def use(name: str, arguments: object, conversation: Conversation | None = None) -> dict[str, object]:
    """Have a model use one tool, and return what it is told of that."""
    model = ScriptedModel(wishes((name, arguments)), "All right.")
    conversation = conversation or Conversation()
    conversation.flow = Conversation(model).flow
    assert await conversation.hear("hello") == ["All right."]
    result: dict[str, object] = json.loads(model.asked[1][-1].content)
    return result
