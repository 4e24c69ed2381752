"""Flow states, and decisions: all that handling one event changes, as a value that is applied in one commit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from promptpipe.model.messages import MessageClass, Text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from promptpipe.model.events import StoredEvent
    from promptpipe.model.ids import JobId, MessageId, ParticipantId
    from promptpipe.model.leases import Lease
    from promptpipe.model.messages import Content
    from promptpipe.model.participants import Participant


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowState:
    """One participant's place in one flow. *version* counts its changes, from 1."""

    participant_id: ParticipantId
    flow_type: str
    current_state: str
    data: Mapping[str, object]
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class StateChange:
    """A new state to save in place of the version that the flow was given."""

    flow_type: str
    current_state: str
    data: Mapping[str, object]
    from_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """A message to the participant. The flow type *awaited_by* gets an event when it was sent or failed."""

    id: MessageId
    content: Content
    message_class: MessageClass = MessageClass.REPLY
    awaited_by: str | None = None
    expires_at: datetime | None = None

    @property
    def text(self) -> str:
        """The body, as a conversation's history keeps it."""
        match self.content:
            case Text(body=body):
                return body


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """A timer: a job of this participant, in place of any of theirs with the same key."""

    id: JobId
    kind: str
    key: str
    at: datetime
    payload: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What handling one event changes. *cancel* holds dedupe keys of this participant's timers."""

    state: StateChange | None = None
    say: tuple[Say, ...] = ()
    wake: tuple[Wake, ...] = ()
    cancel: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A registered response handler: it receives the participant's replies until it expires."""

    participant_id: ParticipantId
    handler_type: str
    flow_type: str
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The head of a mailbox, handed to the worker that holds it, with all that handling it needs."""

    lease: Lease
    event: StoredEvent
    participant: Participant
    states: Mapping[str, FlowState]
    hooks: tuple[Hook, ...]


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided about a delivery.

    The next event of the same mailbox is wanted under a lease of *next_within* seconds; None releases the mailbox.
    """

    delivery: Delivery
    decision: Decision
    next_within: float | None
