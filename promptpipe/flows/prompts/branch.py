"""Branch prompts: a question with choices, each with an answer of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.flows.prompts.handler import Answer, hook_for
from promptpipe.model.errors import CorruptStateError
from promptpipe.model.messages import Choice, Choices, Text
from promptpipe.model.prompts import BranchPrompt, prompt_in, prompt_payload

if TYPE_CHECKING:
    from promptpipe.flows.flow import FlowContext
    from promptpipe.model.decisions import Hook
    from promptpipe.model.events import Replied

MESSAGE_ID = "message_id"


class BranchHandler:
    """`ResponseHandler`: answers the choice with the option's text, once."""

    handler_type = "branch"

    async def respond(self, reply: Replied, hook: Hook, context: FlowContext) -> Answer | None:
        """See `ResponseHandler.respond`. Only a choice, by button, list, number or label, is for this handler."""
        del context
        prompt = prompt_in(hook.data)
        if not isinstance(prompt, BranchPrompt):
            raise CorruptStateError("the hook of a branch prompt has no branch prompt")
        question = question_of(prompt, str(hook.data.get(MESSAGE_ID)))
        choice = question.chosen(reply.choice_id, reply.text)
        if choice is None:
            return None
        return Answer(Text(prompt.options[question.choices.index(choice)].body))


def question_of(prompt: BranchPrompt, message_id: str) -> Choices:
    """Return what a branch prompt says as the message *message_id*, by which its choices differ from any other's."""
    choices = (Choice(f"{message_id}:{n}", option.label) for n, option in enumerate(prompt.options, 1))
    return Choices(prompt.body, tuple(choices))


def branch_hook(prompt: BranchPrompt, message_id: str, context: FlowContext) -> Hook:
    """Return the hook that waits for the choice."""
    return hook_for(BranchHandler.handler_type, {**prompt_payload(prompt), MESSAGE_ID: message_id}, context)
