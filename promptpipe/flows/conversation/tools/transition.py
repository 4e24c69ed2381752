"""`transition_state`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from promptpipe.flows.conversation import feedback
from promptpipe.flows.conversation.state import TRANSITION, Module, PendingTransition
from promptpipe.flows.conversation.timers import AUTO_FEEDBACK, STATE_TRANSITION
from promptpipe.flows.conversation.tools.tool import ToolError, number, one_of
from promptpipe.model.chat import Tool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptpipe.flows.conversation.turn import Turn

MAX_DELAY = 7 * 24 * 60
"""Minutes."""


class TransitionState:
    """`CoachTool`: lets the other module answer, at once or later."""

    tool = Tool(
        name="transition_state",
        description="Go over to another part of the conversation, at once or after some time.",
        parameters={
            "type": "object",
            "properties": {
                "target_state": {"type": "string", "enum": [module.value for module in Module]},
                "delay_minutes": {"type": "number", "minimum": 0, "maximum": MAX_DELAY},
                "reason": {"type": "string", "description": "Why, in a few words."},
            },
            "required": ["target_state"],
        },
    )

    async def use(self, arguments: Mapping[str, object], turn: Turn) -> Mapping[str, object]:
        """See `CoachTool.use`."""
        target = Module(one_of(arguments, "target_state", *(module.value for module in Module)))
        minutes = number(arguments, "delay_minutes") or 0.0
        if not 0 <= minutes <= MAX_DELAY:
            raise ToolError(f"delay_minutes must be from 0 to {MAX_DELAY}")
        if not minutes:
            if target is turn.state.module and turn.state.transition is None:
                return {"status": "noop", "state": target.value}
            feedback.move(turn, target)
            return {"status": "success", "state": target.value}
        due_at = turn.now + timedelta(minutes=minutes)
        turn.stop(AUTO_FEEDBACK)
        turn.start(STATE_TRANSITION, due_at)
        turn.change(**{TRANSITION: PendingTransition(target, due_at).to_data()})
        return {"status": "success", "state": turn.state.module.value, "then": target.value, "at": due_at.isoformat()}
