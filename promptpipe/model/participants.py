"""People who take part, and the addresses by which channels reach them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from promptpipe.model.ids import ParticipantId

MIN_PHONE_DIGITS = 6
MAX_PHONE_DIGITS = 15  # ITU-T E.164


class ParticipantStatus(Enum):
    """Only active participants are prompted and recovered."""

    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"
    WITHDRAWN = "withdrawn"


class AddressKind(Enum):
    """A phone number in E.164, or the user id a provider gives instead of one."""

    PHONE = "phone"
    USER_ID = "user_id"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a channel reaches a person. Conversations are keyed by participant, never by address."""

    channel: str
    kind: AddressKind
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """A person enrolled. *channel* is where they wrote last; *timezone* is an IANA zone name."""

    id: ParticipantId
    status: ParticipantStatus
    channel: str
    addresses: tuple[Address, ...]
    created_at: datetime
    name: str | None = None
    gender: str | None = None
    ethnicity: str | None = None
    background: str | None = None
    timezone: str | None = None

    @property
    def active(self) -> bool:
        """Whether flows may prompt this person."""
        return self.status is ParticipantStatus.ACTIVE


def e164(text: str) -> str | None:
    """Return *text* as an E.164 number with its `+`, or None when its digits cannot be one.

    The number must be in international form already; punctuation and spaces are dropped.
    """
    digits = "".join(char for char in text if char.isdecimal() and char.isascii())
    return f"+{digits}" if MIN_PHONE_DIGITS <= len(digits) <= MAX_PHONE_DIGITS else None
