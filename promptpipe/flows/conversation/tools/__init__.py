"""What a language model may have done in the course of a conversation."""

from promptpipe.flows.conversation.tools.tool import CoachTool, ToolError
from promptpipe.flows.conversation.tools.toolbox import tools_of

__all__ = ["CoachTool", "ToolError", "tools_of"]
