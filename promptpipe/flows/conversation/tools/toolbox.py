"""Which module has which tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.flows.conversation.state import Module
from promptpipe.flows.conversation.tools.habit import GenerateHabitPrompt
from promptpipe.flows.conversation.tools.profile import SaveUserProfile
from promptpipe.flows.conversation.tools.scheduler import Scheduler
from promptpipe.flows.conversation.tools.transition import TransitionState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptpipe.flows.conversation.tools.tool import CoachTool
    from promptpipe.ports.generator import TextGenerator


def tools_of(generator: TextGenerator) -> Mapping[Module, Mapping[str, CoachTool]]:
    """Return the tools of each module, by their names."""
    both: list[CoachTool] = [SaveUserProfile(), Scheduler(), TransitionState()]
    intake: list[CoachTool] = [*both, GenerateHabitPrompt(generator)]
    return {
        Module.INTAKE: {item.tool.name: item for item in intake},
        Module.FEEDBACK: {item.tool.name: item for item in both},
    }
