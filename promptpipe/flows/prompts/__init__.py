"""Prompts that are no flow's own: what they say, and who answers the replies to them."""

from promptpipe.flows.prompts.branch import BranchHandler
from promptpipe.flows.prompts.compose import Composed, PromptComposer, PromptGenerator
from promptpipe.flows.prompts.genai import GenAiHandler
from promptpipe.flows.prompts.handler import PROMPTS, Answer, ResponseHandler

__all__ = [
    "PROMPTS",
    "Answer",
    "BranchHandler",
    "Composed",
    "GenAiHandler",
    "PromptComposer",
    "PromptGenerator",
    "ResponseHandler",
]
