"""`generate_habit_prompt`, and the model that writes habit prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.flows.conversation import prompts
from promptpipe.flows.conversation.context import context_of
from promptpipe.flows.conversation.state import LAST_HABIT_PROMPT
from promptpipe.flows.conversation.tools.tool import ToolError, one_of, text
from promptpipe.model.chat import ChatMessage, Role, Tool
from promptpipe.model.errors import GenerationError
from promptpipe.model.text import shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptpipe.flows.conversation.turn import Turn
    from promptpipe.ports.generator import TextGenerator

NEEDED = ("prompt_anchor", "preferred_time")
MAX_PROMPT = 1000
"""Characters: with more, WhatsApp has no buttons."""
IMMEDIATE, SCHEDULED = "immediate", "scheduled"
MAX_NOTES = 1000


async def written(generator: TextGenerator, turn: Turn, notes: str = "") -> str:
    """Return a habit prompt that a model writes for the participant; raise `GenerationError`."""
    wish = "Write the prompt." if not notes else f"Write the prompt. Mind this: {notes}"
    messages = (
        ChatMessage(role=Role.SYSTEM, content=turn.settings.texts.habit_prompt),
        ChatMessage(role=Role.SYSTEM, content=context_of(turn)),
        ChatMessage(role=Role.USER, content=wish),
    )
    answer = (await generator.generate(messages)).text.strip()
    if not answer:
        raise GenerationError("the model wrote nothing")
    return shortened(answer, MAX_PROMPT)


class GenerateHabitPrompt:
    """`CoachTool`: has a prompt written, and sent after the answer or only kept."""

    tool = Tool(
        name="generate_habit_prompt",
        description=(
            "Have a habit prompt written for this person. An immediate one is sent by itself, right after your answer:"
            " do not repeat it. A scheduled one is an example of what they will get."
        ),
        parameters={
            "type": "object",
            "properties": {
                "delivery_mode": {"type": "string", "enum": [IMMEDIATE, SCHEDULED]},
                "personalization_notes": {"type": "string", "description": "What the prompt is to take into account."},
            },
            "required": ["delivery_mode"],
        },
    )

    def __init__(self, generator: TextGenerator) -> None:
        self._generator = generator

    async def use(self, arguments: Mapping[str, object], turn: Turn) -> Mapping[str, object]:
        """See `CoachTool.use`."""
        mode = one_of(arguments, "delivery_mode", IMMEDIATE, SCHEDULED)
        lacking = [name for name in NEEDED if not turn.state.profile.get(name)]
        if lacking:
            raise ToolError(f"the profile has no {' and no '.join(lacking)} yet: ask for it, and save it first")
        notes = shortened(text(arguments, "personalization_notes"), MAX_NOTES)
        try:
            prompt = await written(self._generator, turn, notes)
        except GenerationError as error:
            raise ToolError(f"no prompt could be written: {error}") from error
        turn.change(**{LAST_HABIT_PROMPT: prompt})
        if mode == IMMEDIATE:
            turn.after_answer = lambda: prompts.send_own(turn, prompt)
        return {"status": "success", "prompt": prompt, "sent": mode == IMMEDIATE}
