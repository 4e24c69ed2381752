"""The habit coach: the reference for writing flows."""

from promptpipe.flows.conversation.flow import ConversationFlow, ConversationSettings
from promptpipe.flows.conversation.recovery import ConversationFlowRecovery

__all__ = ["ConversationFlow", "ConversationFlowRecovery", "ConversationSettings"]
