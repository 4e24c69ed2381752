"""What a flow is, and what it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from promptpipe.model.decisions import Decision, FlowState
    from promptpipe.model.events import Event
    from promptpipe.model.participants import Participant


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
        """Return what handling *event* changes. It may be called again for the same event after a crash."""
        ...
