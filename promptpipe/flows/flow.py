"""What a flow is, and what it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from promptpipe.model.decisions import Decision, FlowState
    from promptpipe.model.events import Event, Replied
    from promptpipe.model.messages import Content
    from promptpipe.model.participants import Participant
    from promptpipe.model.prompts import PromptOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowContext:
    """What a flow may know beside the event and its state. Ids it makes name what its decision creates."""

    participant: Participant
    now: datetime
    new_id: Callable[[], str]


class Flow(Protocol):
    """A kind of conversation."""

    @property
    def flow_type(self) -> str:
        """The name under which its states are kept."""
        ...

    @property
    def handler_type(self) -> str:
        """The name under which its response handler is registered."""
        ...

    @property
    def initial_state(self) -> str:
        """The `current_state` of someone just enrolled; their state data is empty."""
        ...

    @property
    def job_kinds(self) -> frozenset[str]:
        """The kinds of its timers."""
        ...

    async def handle(self, event: Event, state: FlowState, context: FlowContext) -> Decision:
        """Return what handling *event* changes. It may be called again for the same event after a crash.

        Raise `RefusedError` when an operator asked for something that cannot be done: then nothing changes, and they
        are told. Whatever else it raises has the event tried again, and at last set aside.
        """
        ...


@runtime_checkable
class PromptingFlow(Flow, Protocol):
    """A flow that takes note of prompts to its participants and what they reply, and has prompts of its own.

    Any other flow hears of neither.
    """

    async def prompt(
        self, order: PromptOrder, content: Content | None, state: FlowState, context: FlowContext
    ) -> Decision:
        """Return what comes of a prompt that is due, its message (by `PromptOrder.say`) included.

        Without *content* the order is for a `ConversationPrompt`: the flow says what it has to say.
        """
        ...

    async def answered(
        self, reply: Replied, answer: Content | None, state: FlowState, context: FlowContext
    ) -> Decision:
        """Return what changes by a reply that a response handler has taken, and answered if there is an *answer*.

        The answer is sent beside this decision.
        """
        ...
