"""What happens to a participant: the events of a mailbox, handled one at a time and in order.

Events are stored as a kind and a JSON object. `encoded` and `decoded` are the only places that know how.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, get_args

from promptpipe.model.errors import FlowError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptpipe.model.ids import EventId, JobId, MessageId, ParticipantId, ResponseId


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """The participant was enrolled into *flow_type* by someone other than themselves."""

    kind: ClassVar[str] = "enrolled"
    flow_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replied:
    """The participant wrote, pressed a button, or sent something else (*type*; *text* is always readable).

    *channel* is where it came from; *said_at* is the provider's time, which decides its age, never its order.
    """

    kind: ClassVar[str] = "replied"
    response_id: ResponseId
    channel: str
    type: str
    text: str
    said_at: datetime
    choice_id: str | None = None
    conversational: bool = True

    @property
    def worded(self) -> bool:
        """Whether the text is the person's own words, or what they tapped."""
        return self.type in {"text", "button", "interactive"} and bool(self.text.strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFired:
    """A job of this participant came due."""

    kind: ClassVar[str] = "timer_fired"
    job_id: JobId
    job_kind: str
    dedupe_key: str | None
    payload: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageSent:
    """A message that the flow waits on reached the provider."""

    kind: ClassVar[str] = "message_sent"
    flow_type: str
    message_id: MessageId
    sent_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageFailed:
    """A message that the flow waits on will not be delivered."""

    kind: ClassVar[str] = "message_failed"
    flow_type: str
    message_id: MessageId
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerLost:
    """Recovery found flow state under *data_key* that names a job which no longer exists or has ended.

    Without a *job_id* it names none, though something in it waits for one. *remaining* is what is left of its time in
    seconds; None means only the reference is to be cleared.
    """

    kind: ClassVar[str] = "timer_lost"
    flow_type: str
    job_id: JobId | None
    data_key: str
    remaining: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptOrdered:
    """Somebody asked for a prompt (its `prompt_payload`), which is to be the message *message_id*."""

    kind: ClassVar[str] = "prompt_ordered"
    message_id: MessageId
    prompt: Mapping[str, object]
    dedupe_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowMoved:
    """An operator wants the conversation to go on in *target_state*, as the flow calls it."""

    kind: ClassVar[str] = "flow_moved"
    flow_type: str
    target_state: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowReset:
    """An operator wants the conversation to begin again."""

    kind: ClassVar[str] = "flow_reset"
    flow_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """Something that happened elsewhere, by a name that the flow knows."""

    kind: ClassVar[str] = "signal"
    flow_type: str
    name: str
    payload: Mapping[str, object] = field(default_factory=dict)


Event = (
    Enrolled
    | Replied
    | TimerFired
    | MessageSent
    | MessageFailed
    | TimerLost
    | PromptOrdered
    | FlowMoved
    | FlowReset
    | Signal
)
Order = PromptOrdered | FlowMoved | FlowReset | Signal
"""What somebody asked for who waits to hear what became of it."""

_KINDS: Mapping[str, type[Event]] = {event.kind: event for event in get_args(Event)}
_FIELDS = {kind: frozenset(item.name for item in fields(event)) for kind, event in _KINDS.items()}
_INSTANTS = {kind: names & {"said_at", "sent_at"} for kind, names in _FIELDS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """An event in its mailbox. *blocked* is how long it has held up the conversation, in seconds."""

    id: EventId
    attempt: int
    blocked: float
    created_at: datetime
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class EventAside:
    """An event that could not be handled, as it is stored: nothing says that this version knows its kind.

    *last_error* says why it could not be, the last time.
    """

    id: EventId
    participant_id: ParticipantId
    kind: str
    payload: Mapping[str, object]
    attempts: int
    last_error: str
    created_at: datetime


def encoded(event: Event) -> dict[str, object]:
    """Return *event* as a JSON object; instants become ISO 8601 text."""
    values = {name: getattr(event, name) for name in _FIELDS[event.kind]}
    for name in _INSTANTS[event.kind]:
        values[name] = values[name].isoformat()
    return values


def decoded(kind: str, data: Mapping[str, object]) -> Event:
    """Return the event that `encoded` made *data* from; raise `FlowError` when it cannot have been one."""
    event_type = _KINDS.get(kind)
    if event_type is None:
        raise FlowError(f"an event of kind {kind!r} is unknown to this version")
    known = _FIELDS[kind]
    values = dict(data) if known.issuperset(data) else {name: data[name] for name in known.intersection(data)}
    try:
        for name in _INSTANTS[kind].intersection(values):
            values[name] = datetime.fromisoformat(str(values[name]))
        return event_type(**values)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise FlowError(f"a stored {kind} event is malformed: {error}") from error
