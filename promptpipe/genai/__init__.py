"""Language models behind an OpenAI-compatible API. It is imported only where one is configured: that takes a while."""

from promptpipe.genai.client import GenAiConfig, OpenAiGenerator

__all__ = ["GenAiConfig", "OpenAiGenerator"]
