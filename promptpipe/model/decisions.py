"""Flow states, and decisions: all that handling one event changes, as a value that is applied in one commit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from promptpipe.model.messages import MessageClass, readable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from promptpipe.model.events import StoredEvent
    from promptpipe.model.ids import JobId, MessageId, ParticipantId, ScheduleId
    from promptpipe.model.leases import Lease
    from promptpipe.model.messages import Content
    from promptpipe.model.participants import Participant
    from promptpipe.model.schedules import NewSchedule


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
    """A message to the participant. The flow type *awaited_by* gets an event when it was sent or failed.

    One whose *dedupe_key* a message of the last 30 days has is not said.
    """

    id: MessageId
    content: Content
    message_class: MessageClass = MessageClass.REPLY
    awaited_by: str | None = None
    expires_at: datetime | None = None
    dedupe_key: str | None = None

    @property
    def text(self) -> str:
        """What it says, as a conversation's history keeps it."""
        return readable(self.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """A timer: a job of this participant, in place of any of theirs with the same key."""

    id: JobId
    kind: str
    key: str
    at: datetime
    payload: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A registered response handler: it receives the participant's replies until it expires.

    Those that expire come first, the soonest first. *data* is what the handler needs to know of what it waits for.
    """

    participant_id: ParticipantId
    handler_type: str
    flow_type: str
    expires_at: datetime | None = None
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What handling one event changes, all of it this participant's.

    *cancel* holds dedupe keys of timers. *schedule* makes schedules, and *unschedule* ends some; what these made and is
    still to be handled ends with them. *hook* registers response handlers, each in place of any of its type, and
    *unhook* removes those of some types. With a *refusal*, which says why what an operator asked for is not done,
    nothing changes.
    """

    state: StateChange | None = None
    say: tuple[Say, ...] = ()
    wake: tuple[Wake, ...] = ()
    cancel: tuple[str, ...] = ()
    schedule: tuple[NewSchedule, ...] = ()
    unschedule: tuple[ScheduleId, ...] = ()
    hook: tuple[Hook, ...] = ()
    unhook: tuple[str, ...] = ()
    refusal: str | None = None


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
