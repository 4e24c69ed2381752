"""People who take part, and the addresses by which channels reach them."""

from __future__ import annotations

import re
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
    updated_at: datetime
    name: str | None = None
    gender: str | None = None
    ethnicity: str | None = None
    background: str | None = None
    timezone: str | None = None

    @property
    def active(self) -> bool:
        """Whether flows may prompt this person."""
        return self.status is ParticipantStatus.ACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What is known of a person beside their addresses; None stands for unknown."""

    name: str | None = None
    gender: str | None = None
    ethnicity: str | None = None
    background: str | None = None
    timezone: str | None = None


def e164(text: str) -> str | None:
    """Return *text* as an E.164 number with its `+`, or None when it cannot be one.

    The number must be in international form already; spaces and punctuation are dropped.
    """
    digits = re.sub(r"[\s().+/-]", "", text)
    plausible = digits.isascii() and digits.isdecimal() and MIN_PHONE_DIGITS <= len(digits) <= MAX_PHONE_DIGITS
    return f"+{digits}" if plausible else None
