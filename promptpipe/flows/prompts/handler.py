"""What response handlers are. Only what stands in their hooks lasts: they survive restarts by having nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from promptpipe.model.decisions import Hook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptpipe.flows.flow import FlowContext
    from promptpipe.model.events import Replied
    from promptpipe.model.messages import Content

PROMPTS = "prompts"
"""The flow type of hooks that belong to no flow, but to a prompt."""

WAITS_FOR = timedelta(days=7)
"""How long a prompt's handler receives replies, unless it has answered or another prompt takes its place."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler makes of a reply: what it says, if anything, and whether it waits for more."""

    content: Content | None
    waits: bool = False


class ResponseHandler(Protocol):
    """Receives the replies of participants who have its hook, before their flow does."""

    @property
    def handler_type(self) -> str:
        """The name under which its hooks are registered."""
        ...

    async def respond(self, reply: Replied, hook: Hook, context: FlowContext) -> Answer | None:
        """Return what it makes of *reply*; None when that is not for it but for the next handler, or the flow."""
        ...


def hook_for(handler_type: str, data: Mapping[str, object], context: FlowContext) -> Hook:
    """Return the hook by which a prompt's handler receives the participant's replies."""
    return Hook(
        participant_id=context.participant.id,
        handler_type=handler_type,
        flow_type=PROMPTS,
        expires_at=context.now + WAITS_FOR,
        data=data,
    )
