"""A language model that can be asked again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import trio

from promptpipe.flows.tone.guide import ALWAYS, RULES
from promptpipe.model.chat import Generated, Role, ToolCall
from tests.support.conversing import TEXTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from promptpipe.model.chat import ChatMessage, Tool

KNOWN = (
    "- intensity:",
    "- prompts sent:",
    TEXTS.intake,
    TEXTS.feedback,
    *(f"- {rule}" for rule in (*RULES.values(), ALWAYS)),
)
"""What the lines begin with that a model repeats of what it is told."""


class SteadyModel:
    """`ports.generator.TextGenerator` that says the same whenever it is told the same, also when it is asked again.

    At words that *wishes* has it uses tools, round by round. Then, and at all others, it repeats what it was told. The
    prompts that it writes say what time it is.
    """

    def __init__(self, wishes: Mapping[str, Sequence[Generated]]) -> None:
        self._wishes = wishes

    async def generate(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> Generated:
        """See `TextGenerator.generate`."""
        await trio.lowlevel.checkpoint()
        told = [line for message in messages if message.role is Role.SYSTEM for line in message.content.splitlines()]
        if not tools:
            [clock] = [line for line in told if line.startswith("It is ")]
            return Generated(text=f"{clock} Stretch!")
        said = next((message.content for message in reversed(messages) if message.role is Role.USER), "hello")
        rounds = [message for message in messages if message.tool_calls]
        wishes = self._wishes.get(said, ())
        if len(rounds) < len(wishes):
            return wishes[len(rounds)]
        known = [line.removeprefix("- ") for line in told if line.startswith(KNOWN)]
        return Generated(text=" / ".join([*known, said]))


def wish(*uses: tuple[str, Mapping[str, object]]) -> Generated:
    """Return a model's wish to use tools."""
    calls = (ToolCall(id=f"c{n}", name=name, arguments=json.dumps(values)) for n, (name, values) in enumerate(uses))
    return Generated(text="", tool_calls=tuple(calls))
