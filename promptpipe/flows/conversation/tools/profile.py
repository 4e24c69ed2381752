"""`save_user_profile`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.flows.conversation.profile import FIELDS, merged, missing, toned
from promptpipe.flows.conversation.tools.tool import number, one_of, text
from promptpipe.flows.tone import TAGS, UpdateSource
from promptpipe.model.chat import Tool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptpipe.flows.conversation.turn import Turn


class SaveUserProfile:
    """`CoachTool`: keeps what was learned of somebody, and how they like to be talked to."""

    tool = Tool(
        name="save_user_profile",
        description="Keep what you have learned of this person. Give only what is new or has changed.",
        parameters={
            "type": "object",
            "properties": {
                **{name: {"type": "string", "description": meaning} for name, meaning in FIELDS.items()},
                "tone_tags": {
                    "type": "array",
                    "items": {"type": "string", "enum": list(TAGS)},
                    "description": "How they want to be talked to, or seem to like it.",
                },
                "tone_update_source": {
                    "type": "string",
                    "enum": [source.value for source in UpdateSource],
                    "description": "explicit when they have said so, implicit when you have noticed it.",
                },
                "tone_confidence": {"type": "number", "minimum": 0, "maximum": 1},
            },
        },
    )

    async def use(self, arguments: Mapping[str, object], turn: Turn) -> Mapping[str, object]:
        """See `CoachTool.use`."""
        before = turn.state
        state = merged(before, arguments)
        if arguments.get("tone_tags"):
            source = UpdateSource.IMPLICIT
            if text(arguments, "tone_update_source"):
                source = UpdateSource(one_of(arguments, "tone_update_source", *(item.value for item in UpdateSource)))
            confidence = number(arguments, "tone_confidence")
            state = toned(state, arguments["tone_tags"], source, turn.now, 1.0 if confidence is None else confidence)
        turn.state = state
        return {"status": "noop" if state is before else "success", "missing": missing(state)}
