"""Prompts that somebody asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.errors import InvalidArgumentError, NotFoundError, PreconditionError
from promptpipe.model.events import PromptOrdered
from promptpipe.model.ids import MessageId
from promptpipe.model.messages import MAX_TEXT
from promptpipe.model.prompts import (
    BranchPrompt,
    ConversationPrompt,
    CustomPrompt,
    GenAiPrompt,
    StaticPrompt,
    prompt_payload,
)
from promptpipe.services import checks
from promptpipe.services.orders import carried_out

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from promptpipe.model.ids import ParticipantId
    from promptpipe.model.messages import OutboxMessage
    from promptpipe.model.prompts import Prompt
    from promptpipe.ports.orders import OrderStore
    from promptpipe.ports.store import OutboxStore

OPTIONS = range(2, 11)
MAX_QUESTION = 2000
"""Characters of a branch prompt's question. With ten of the longest options, a text still holds it."""
MAX_LABEL = 100
MAX_OPTION = 1000
MAX_INSTRUCTION = 10_000
"""Characters of what a language model is told."""


class PromptRules:
    """What prompts must be, where *generators* make custom ones and there is a language model or not."""

    def __init__(self, generators: Collection[str], *, has_model: bool) -> None:
        self._generators = generators
        self._has_model = has_model

    def check(self, prompt: Prompt) -> None:
        """Raise `InvalidArgumentError` for what breaks a rule, and `PreconditionError` when nobody can write it."""
        match prompt:
            case StaticPrompt(body=body):
                checks.text("prompt.static.body", body, longest=MAX_TEXT, needed=True)
            case GenAiPrompt(system_prompt=system, user_prompt=user):
                checks.text("prompt.genai.system_prompt", system, longest=MAX_INSTRUCTION)
                checks.text("prompt.genai.user_prompt", user, longest=MAX_INSTRUCTION, needed=True)
                if not self._has_model:
                    raise PreconditionError("no language model is configured: set PROMPTPIPE_GENAI__API_KEY")
            case BranchPrompt():
                _check_branch(prompt)
            case CustomPrompt(generator=name):
                checks.one_of("prompt.custom.generator", name, self._generators)
            case ConversationPrompt():
                pass


def _check_branch(prompt: BranchPrompt) -> None:
    checks.text("prompt.branch.body", prompt.body, longest=MAX_QUESTION, needed=True)
    if len(prompt.options) not in OPTIONS:
        rule = f"must be {OPTIONS[0]} to {OPTIONS[-1]}, not {len(prompt.options)}"
        raise InvalidArgumentError("prompt.branch.options", rule)
    labels: set[str] = set()
    for n, option in enumerate(prompt.options):
        field = f"prompt.branch.options[{n}]"
        label = checks.text(f"{field}.label", option.label, longest=MAX_LABEL, needed=True)
        checks.text(f"{field}.body", option.body, longest=MAX_OPTION, needed=True)
        if label.strip().casefold() in labels:
            raise InvalidArgumentError(f"{field}.label", "must differ from the others")
        labels.add(label.strip().casefold())


class Prompts:
    """Prompts that are sent now."""

    def __init__(self, orders: OrderStore, outbox: OutboxStore, rules: PromptRules, new_id: Callable[[], str]) -> None:
        self._orders = orders
        self._outbox = outbox
        self._rules = rules
        self._new_id = new_id

    async def send(
        self, participant_id: ParticipantId, prompt: Prompt, dedupe_key: str | None
    ) -> tuple[OutboxMessage, bool]:
        """Send a prompt; return its message, or the one that has its dedupe key, and whether it is a new one.

        It comes in its turn in the participant's mailbox. `orders.carried_out` says what else may come of it.
        """
        self._rules.check(prompt)
        order = PromptOrdered(
            message_id=MessageId(self._new_id()),
            prompt=prompt_payload(prompt),
            dedupe_key=checks.key("dedupe_key", dedupe_key),
        )
        event_id, message_id = await self._orders.prompt(participant_id, order)
        if event_id is not None:
            await carried_out(self._orders, event_id)
        try:
            return await self._outbox.get(message_id), message_id == order.message_id
        except NotFoundError:
            raise PreconditionError("nothing was sent: a message has got the dedupe key meanwhile") from None
