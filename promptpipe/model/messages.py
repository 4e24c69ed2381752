"""Outgoing messages, the attempts to send them, and the receipts that come back.

A message's status only ever moves forward along one lattice::

    QUEUED < SENDING < IN_DOUBT < SENT < FAILED < DELIVERED < READ

CANCELED and EXPIRED are reached from QUEUED only. FAILED lies below DELIVERED because providers do report
`delivered` after `failed`. Going back to QUEUED (a refused attempt that is to be tried again) is not a
status that arrives: only the holder of the recipient's lane may do it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from promptpipe.model.ids import MessageId, ParticipantId
    from promptpipe.model.leases import Lease
    from promptpipe.model.participants import Address


MAX_TEXT = 4096
"""Characters of a text, as WhatsApp takes them."""


class MessageStatus(Enum):
    """Where an outgoing message stands."""

    QUEUED = "queued"
    SENDING = "sending"
    IN_DOUBT = "in_doubt"
    SENT = "sent"
    FAILED = "failed"
    DELIVERED = "delivered"
    READ = "read"
    EXPIRED = "expired"
    CANCELED = "canceled"

    @property
    def rank(self) -> int:
        """The place in the lattice; the two that are off the main line rank last, for they are final."""
        return _RANKS[self.value]

    @property
    def reached_provider(self) -> bool:
        """Whether the provider is known to have accepted the message."""
        return self in {MessageStatus.SENT, MessageStatus.DELIVERED, MessageStatus.READ}

    @property
    def settled(self) -> bool:
        """Whether nothing more is to be done to send it."""
        return self.rank >= MessageStatus.SENT.rank


class AttemptState(Enum):
    """Where one attempt to send a message stands. It moves forward along the same lattice."""

    UNSENT = "unsent"
    """No byte of it left."""
    SENDING = "sending"
    IN_DOUBT = "in_doubt"
    DROPPED = "dropped"
    """Its doubt was given up: taken for failed, unless a status still says otherwise."""
    SENT = "sent"
    FAILED = "failed"
    DELIVERED = "delivered"
    READ = "read"

    def merged(self, other: AttemptState) -> AttemptState:
        """Return the further of two states of the same attempt."""
        return max(self, other, key=lambda state: _RANKS[state.value])


_RANKS = {
    "queued": 0,
    "unsent": 0,
    "sending": 1,
    "in_doubt": 2,
    "dropped": 2,
    "sent": 3,
    "failed": 4,
    "delivered": 5,
    "read": 6,
    "expired": 7,
    "canceled": 7,
}


def advanced(before: MessageStatus, attempts: Iterable[AttemptState]) -> MessageStatus:
    """Return what a message's status becomes by what is known of its *attempts*, one of which has moved forward.

    It is failed only when all of them are: one that may still arrive outweighs one that failed. A message that
    waits for its next attempt does not fail by what is known of the last.
    """
    if before in {MessageStatus.EXPIRED, MessageStatus.CANCELED}:
        return before
    states = {
        AttemptState.FAILED if state is AttemptState.DROPPED else state
        for state in attempts
        if state is not AttemptState.UNSENT
    }
    hopeful = states - {AttemptState.FAILED}
    if not hopeful and before is MessageStatus.QUEUED:
        return before
    furthest = max(hopeful or states, key=lambda state: _RANKS[state.value])
    return MessageStatus(furthest.value)


class MessageClass(Enum):
    """Replies overtake broadcasts; within a class, order is kept."""

    REPLY = "reply"
    BROADCAST = "broadcast"

    @property
    def priority(self) -> int:
        """The lane's priority; lower leaves first."""
        return 0 if self is MessageClass.REPLY else 1


class InDoubtPolicy(Enum):
    """What becomes of a message whose doubt no status settled within the wait."""

    RESEND = "resend"
    DROP = "drop"
    HOLD = "hold"


class Resolution(Enum):
    """What an operator decides of a message in doubt."""

    RESEND = "resend"
    DROP = "drop"
    MARK_SENT = "mark_sent"


@dataclass(frozen=True, slots=True)
class InDoubtRules:
    """What becomes of messages in doubt, unless they say otherwise: wait for a status (seconds), then the policy.

    *linger* is how long after its lease's end the request of a sender that vanished may still be on its way (seconds).
    It is 0 where a vanished sender is known to be gone with its sockets (SQLite).
    """

    wait: float = 120.0
    policy: InDoubtPolicy = InDoubtPolicy.RESEND
    linger: float = 0.0


@dataclass(frozen=True, slots=True)
class Text:
    """A plain text message."""

    body: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Something that can be chosen. *id* comes back with the reply."""

    id: str
    label: str


@dataclass(frozen=True, slots=True)
class Choices:
    """A text with choices: buttons or a list where the channel has them and they fit, else numbered lines of text."""

    body: str
    choices: tuple[Choice, ...]

    @property
    def numbered(self) -> str:
        """The text with the choices as numbered lines, which a number or a label answers."""
        return "\n".join([self.body, *(f"{n}. {choice.label}" for n, choice in enumerate(self.choices, 1))])

    def chosen(self, choice_id: str | None, text: str) -> Choice | None:
        """Return what a reply chooses: by id, by number or by label; None when it is none of these."""
        said = text.strip().rstrip(".)").casefold()
        for n, choice in enumerate(self.choices, 1):
            if choice.id == choice_id or (choice_id is None and said in {str(n), choice.label.strip().casefold()}):
                return choice
        return None


Content = Text | Choices


def content_kind(content: Content) -> str:
    """Return what a content is called in lists and in the outbox."""
    return "text" if isinstance(content, Text) else "interactive"


def content_data(content: Content) -> dict[str, object]:
    """Return a content as a JSON object."""
    match content:
        case Text(body=body):
            return {"body": body}
        case Choices(body=body, choices=choices):
            return {"body": body, "choices": [{"id": choice.id, "label": choice.label} for choice in choices]}


def content_in(data: Mapping[str, Any]) -> Content:
    """Return the content that `content_data` made *data* from."""
    if "choices" not in data:
        return Text(str(data["body"]))
    return Choices(str(data["body"]), tuple(Choice(item["id"], item["label"]) for item in data["choices"]))


def readable(content: Content) -> str:
    """Return a content as a conversation's history and lists show it."""
    match content:
        case Text(body=body):
            return body
        case Choices():
            return content.numbered


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMessage:
    """A message to put into the outbox.

    With a *flow_type*, that flow gets an event when the message was sent or has failed.
    """

    id: MessageId
    participant_id: ParticipantId
    channel: str
    content: Content
    message_class: MessageClass = MessageClass.REPLY
    dedupe_key: str | None = None
    flow_type: str | None = None
    expires_at: datetime | None = None
    in_doubt_policy: InDoubtPolicy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxMessage:
    """A message as the outbox holds it. *attempts* counts the times it was marked SENDING."""

    id: MessageId
    participant_id: ParticipantId
    channel: str
    recipient: Address
    content: Content
    message_class: MessageClass
    status: MessageStatus
    attempts: int
    created_at: datetime
    dedupe_key: str | None = None
    flow_type: str | None = None
    expires_at: datetime | None = None
    in_doubt_policy: InDoubtPolicy | None = None
    provider_message_id: str | None = None
    last_error: str | None = None
    sent_at: datetime | None = None
    delivered_at: datetime | None = None
    read_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SendOrder:
    """Permission to send one message once: it is marked SENDING, as attempt number *attempt*."""

    lease: Lease
    message: OutboxMessage
    attempt: int

    @property
    def reference(self) -> str:
        """What travels with the request and comes back in every status about it."""
        return f"{self.message.id}:{self.attempt}"


class Departure:
    """Tells whether a request has begun to leave; a channel notes it right before the first byte."""

    def __init__(self) -> None:
        self.left = False

    def note(self) -> None:
        """Say that the next byte leaves: from here on, nobody can take the request back."""
        self.left = True


class Verdict(Enum):
    """What became of a request, as far as the sender can tell."""

    ACCEPTED = "accepted"
    UNSENT = "unsent"
    """No byte of the request left: the attempt does not count."""
    DOUBTFUL = "doubtful"
    """It left and its outcome is unknown."""
    RETRY = "retry"
    """Refused for now: try again a few times."""
    SLOW_RECIPIENT = "slow_recipient"
    """Refused: too fast for this person."""
    SLOW_CHANNEL = "slow_channel"
    """Refused: too fast for the number. The attempt does not count."""
    PAUSE_CHANNEL = "pause_channel"
    """Refused: nothing can be sent until an operator acts. The attempt does not count."""
    LATER = "later"
    """Refused: not within the next hours or day; the message leaves its lane meanwhile."""
    REFUSED = "refused"
    """Refused for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResult:
    """A channel's answer to one send. *delay* (seconds) is the provider's own wish, where it has one."""

    verdict: Verdict
    provider_id: str | None = None
    error: str | None = None
    delay: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """How the store is to record a `SendResult`: the verdict, and the delay that policy gave it (seconds)."""

    verdict: Verdict
    provider_id: str | None = None
    error: str | None = None
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class SendRecord:
    """What became of *order*, and for how long (seconds) its lane is to be held for the next; None to release it."""

    order: SendOrder
    settlement: Settlement
    next_within: float | None
