"""Answers by a language model, which may use tools on the way to one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from promptpipe.flows.conversation import script
from promptpipe.flows.conversation.context import context_of
from promptpipe.flows.conversation.profile import tone_of
from promptpipe.flows.conversation.state import Module
from promptpipe.flows.conversation.tools import ToolError, tools_of
from promptpipe.flows.conversation.tools.tool import parsed, to_json
from promptpipe.flows.tone import guide
from promptpipe.model.chat import ChatMessage, Role
from promptpipe.model.errors import GenerationError
from promptpipe.model.messages import MAX_TEXT
from promptpipe.model.text import shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptpipe.flows.conversation.tools import CoachTool
    from promptpipe.flows.conversation.turn import Turn
    from promptpipe.model.chat import ToolCall
    from promptpipe.ports.generator import TextGenerator

ROUNDS = 10
"""How often a model is asked on the way to one answer."""

ANSWER_SECONDS = 90.0
"""For how long somebody waits for an answer; an event may hold up its conversation for two minutes."""

NEW_HERE = "(This person has just been enrolled and has not written yet. Greet them, and begin.)"


class Coach:
    """Answers as the module in which the conversation is."""

    def __init__(self, generator: TextGenerator) -> None:
        self._generator = generator
        self._tools = tools_of(generator)

    async def answer(self, turn: Turn, text: str | None) -> None:
        """Answer what was said last, *text*, or greet without it; whatever the model does, something is said."""
        module = turn.state.module
        chat = _opening(turn, module, text)
        found: str | None = None
        with trio.move_on_after(ANSWER_SECONDS):
            found = await self._answer(turn, chat, self._tools[module])
        turn.answer(
            shortened(found or (script.FALLBACK if text is not None else script.greeting(_name(turn))), MAX_TEXT)
        )
        turn.finish()

    async def _answer(self, turn: Turn, chat: list[ChatMessage], tools: Mapping[str, CoachTool]) -> str | None:
        """Return the answer; None when the model has none."""
        offered = [item.tool for item in tools.values()]
        for _ in range(ROUNDS):
            try:
                generated = await self._generator.generate(chat, offered)
            except GenerationError:
                return None
            text = generated.text.strip()
            if not generated.tool_calls:
                return text or None
            results = [await _used(tools, call, turn) for call in generated.tool_calls]
            if text and all(done for done, _ in results):
                return text
            # What is to be said though something failed, the model says again once it knows.
            chat.append(ChatMessage(role=Role.ASSISTANT, content=text, tool_calls=generated.tool_calls))
            chat += [
                ChatMessage(role=Role.TOOL, content=result, tool_call_id=call.id)
                for call, (_, result) in zip(generated.tool_calls, results, strict=True)
            ]
        return None


def _opening(turn: Turn, module: Module, text: str | None) -> list[ChatMessage]:
    """Return what a model is told before it answers: what it is, about whom, how, and what was said."""
    texts = turn.settings.texts
    told = [
        texts.intake if module is Module.INTAKE else texts.feedback,
        context_of(turn),
        guide(tone_of(turn.state)),
    ]
    past = turn.state.history if text is None else turn.state.history[:-1]
    recent = past[-turn.settings.turns_sent :] if turn.settings.turns_sent else []
    return [
        *(ChatMessage(role=Role.SYSTEM, content=part) for part in told if part),
        *(ChatMessage(role=_role(turn_said), content=str(turn_said.get("content", ""))) for turn_said in recent),
        ChatMessage(role=Role.USER, content=text)
        if text is not None
        else ChatMessage(role=Role.SYSTEM, content=NEW_HERE),
    ]


def _role(said: Mapping[str, object]) -> Role:
    return Role.ASSISTANT if said.get("role") == Role.ASSISTANT.value else Role.USER


async def _used(tools: Mapping[str, CoachTool], call: ToolCall, turn: Turn) -> tuple[bool, str]:
    """Do what a model wants done; return whether it was done, and what the model is told."""
    if call.name not in tools:
        return False, _failure(f"there is no tool {call.name!r}; there are: {', '.join(tools)}")
    try:
        result = await tools[call.name].use(parsed(call.arguments), turn)
    except ToolError as error:
        return False, _failure(str(error))
    return True, to_json(result)


def _failure(reason: str) -> str:
    return to_json({"status": "error", "error": reason})


def _name(turn: Turn) -> str | None:
    return turn.context.participant.name
