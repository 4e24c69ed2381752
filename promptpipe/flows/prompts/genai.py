"""Prompts that a language model writes, and answers the first reply to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.flows.prompts.handler import Answer, hook_for
from promptpipe.model.chat import ChatMessage, Role
from promptpipe.model.errors import CorruptStateError, GenerationError
from promptpipe.model.messages import MAX_TEXT, Text
from promptpipe.model.prompts import GenAiPrompt, prompt_in, prompt_payload
from promptpipe.model.text import shortened

if TYPE_CHECKING:
    from promptpipe.flows.flow import FlowContext
    from promptpipe.model.decisions import Hook
    from promptpipe.model.events import Replied
    from promptpipe.ports.generator import TextGenerator

TEXT = "text"


class GenAiHandler:
    """`ResponseHandler`: lets the model that wrote a prompt answer the first reply to it."""

    handler_type = "genai"

    def __init__(self, generator: TextGenerator | None) -> None:
        self._generator = generator

    async def respond(self, reply: Replied, hook: Hook, context: FlowContext) -> Answer | None:
        """See `ResponseHandler.respond`. What it cannot read, or find an answer to, is for the participant's flow."""
        del context
        prompt = prompt_in(hook.data)
        if not isinstance(prompt, GenAiPrompt):
            raise CorruptStateError("the hook of a generated prompt has no generated prompt")
        if self._generator is None or not reply.worded:
            return None
        said = (
            *opening(prompt),
            ChatMessage(role=Role.ASSISTANT, content=str(hook.data.get(TEXT))),
            ChatMessage(role=Role.USER, content=reply.text),
        )
        try:
            return Answer(Text(await written(self._generator, said)))
        except GenerationError:
            return None


def opening(prompt: GenAiPrompt) -> tuple[ChatMessage, ...]:
    """Return what makes a model write the prompt."""
    return (
        ChatMessage(role=Role.SYSTEM, content=prompt.system_prompt),
        ChatMessage(role=Role.USER, content=prompt.user_prompt),
    )


async def written(generator: TextGenerator, messages: tuple[ChatMessage, ...]) -> str:
    """Return what a model writes, as long as a text may be; raise `GenerationError` when it is nothing."""
    text = (await generator.generate(messages)).text.strip()
    if not text:
        raise GenerationError("the model wrote nothing")
    return shortened(text, MAX_TEXT)


def genai_hook(prompt: GenAiPrompt, text: str, context: FlowContext) -> Hook:
    """Return the hook that waits for the reply to what the model wrote."""
    return hook_for(GenAiHandler.handler_type, {**prompt_payload(prompt), TEXT: text}, context)
