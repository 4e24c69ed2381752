"""The habit coach: the reference for writing flows."""

from promptpipe.flows.conversation.flow import ConversationFlow
from promptpipe.flows.conversation.recovery import ConversationFlowRecovery
from promptpipe.flows.conversation.settings import ConversationSettings, Texts

__all__ = ["ConversationFlow", "ConversationFlowRecovery", "ConversationSettings", "Texts"]
