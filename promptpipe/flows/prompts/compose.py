"""What prompts say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from promptpipe.flows.prompts.branch import branch_hook, question_of
from promptpipe.flows.prompts.genai import genai_hook, opening, written
from promptpipe.model.errors import RefusedError
from promptpipe.model.messages import Text
from promptpipe.model.prompts import BranchPrompt, ConversationPrompt, CustomPrompt, GenAiPrompt, StaticPrompt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from promptpipe.flows.flow import FlowContext
    from promptpipe.model.decisions import Hook
    from promptpipe.model.messages import Content
    from promptpipe.model.prompts import PromptOrder
    from promptpipe.ports.generator import TextGenerator


class PromptGenerator(Protocol):
    """Makes custom prompts."""

    @property
    def name(self) -> str:
        """What custom prompts call it."""
        ...

    async def generate(self, parameters: Mapping[str, object], context: FlowContext) -> Content:
        """Return what to say to the context's participant; it may be called again for the same prompt.

        Raise `RefusedError` for *parameters* that it cannot make anything of.
        """
        ...


@dataclass(frozen=True, slots=True)
class Composed:
    """What a prompt says (None: what the participant's flow does), and the hooks that wait for replies to it."""

    content: Content | None
    hooks: tuple[Hook, ...] = ()


class PromptComposer:
    """Makes prompts' contents, with a language model if there is one, and with the registered generators."""

    def __init__(self, generator: TextGenerator | None, custom: Iterable[PromptGenerator] = ()) -> None:
        self._generator = generator
        self._custom = {each.name: each for each in custom}

    @property
    def has_model(self) -> bool:
        """Whether there is a language model."""
        return self._generator is not None

    @property
    def custom(self) -> frozenset[str]:
        """The names of the registered generators."""
        return frozenset(self._custom)

    async def compose(self, order: PromptOrder, context: FlowContext) -> Composed:
        """Return what *order* says; raise `RefusedError` when nothing here can make it, and `GenerationError`."""
        match order.prompt:
            case StaticPrompt(body=body):
                return Composed(Text(body))
            case BranchPrompt() as branch:
                hook = branch_hook(branch, order.message_id, context)
                return Composed(question_of(branch, order.message_id), (hook,))
            case GenAiPrompt() as genai:
                if self._generator is None:
                    raise RefusedError("no language model is configured")
                text = await written(self._generator, opening(genai))
                return Composed(Text(text), (genai_hook(genai, text, context),))
            case CustomPrompt(generator=name, parameters=parameters):
                if name not in self._custom:
                    raise RefusedError(f"no prompt generator is called {name}")
                return Composed(await self._custom[name].generate(parameters, context))
            case ConversationPrompt():
                return Composed(None)
