"""What was said, and what became of it: rows that are only ever added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from promptpipe.model.ids import MessageId, ParticipantId, ResponseId
    from promptpipe.model.messages import MessageStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What a webhook brought. *raw* is the provider's update, JSON bytes as they came."""

    id: ResponseId
    participant_id: ParticipantId | None
    channel: str
    message_id: str
    sender: str
    type: str
    text: str
    raw: bytes
    provider_time: datetime | None
    received_at: datetime
    processed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A delivery status, kept; *message_id* is None when it is about no message we know."""

    id: str
    message_id: MessageId | None
    provider_message_id: str
    status: MessageStatus
    error: str | None
    provider_time: datetime | None
    received_at: datetime
