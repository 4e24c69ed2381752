"""What a channel's webhook brings: people's messages, delivery statuses, and everything else, kept raw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from promptpipe.model.ids import MessageId
    from promptpipe.model.messages import MessageStatus
    from promptpipe.model.participants import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundMessage:
    """A message from a person. *raw* is the provider's update as JSON bytes, nothing replaced.

    *text* is readable whatever the type. *choice_id* is the id of the button or list row that was chosen.
    *conversational* is False for what nobody is to be answered or enrolled for: group messages, reactions,
    edits, system notices.
    """

    channel: str
    number_id: str
    provider_id: str
    senders: tuple[Address, ...]
    type: str
    text: str
    raw: bytes
    provider_time: datetime | None = None
    sender_name: str | None = None
    choice_id: str | None = None
    conversational: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundStatus:
    """A delivery status. *reference* names our message and attempt when the provider sent it back."""

    channel: str
    number_id: str
    provider_id: str
    status: MessageStatus
    raw: bytes
    reference: tuple[MessageId, int] | None = None
    provider_time: datetime | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundOther:
    """Anything else: *key* tells repeats apart, *type* says what it looked like."""

    channel: str
    number_id: str
    key: str
    type: str
    raw: bytes


Update = InboundMessage | InboundStatus | InboundOther


@dataclass(frozen=True, slots=True)
class InboundBatch:
    """The updates of one webhook request in their order, and how many were for numbers not ours."""

    updates: tuple[Update, ...]
    foreign: int = 0


@dataclass(frozen=True, slots=True)
class Enrollment:
    """The flow that people who write first are enrolled into, and its state before the first event."""

    flow_type: str
    handler_type: str
    current_state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestReport:
    """What the commit of one batch did, by count.

    *unmatched* statuses are about no message we know: kept, and joined if one turns out to be theirs; they settle no
    doubt.
    """

    stored: int = 0
    duplicates: int = 0
    enrolled: int = 0
    unparsed: int = 0
    unmatched: int = 0
