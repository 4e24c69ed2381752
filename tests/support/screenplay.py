"""Lives as they are written: who says what, and when.

What people and operators do in a screenplay is done by a test. What the service says in it is what it is to say.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from promptpipe.model.participants import ParticipantStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

PERSON, SERVICE, OPERATOR = "person", "service", "operator"
ENROLL = "enroll"
STATUSES = {
    "pause": ParticipantStatus.PAUSED,
    "resume": ParticipantStatus.ACTIVE,
    "withdraw": ParticipantStatus.WITHDRAWN,
}
"""What operators do beside enrolling, each with the status that comes of it."""


@dataclass(frozen=True, slots=True)
class Line:
    """Something that is said, or done by an operator, at an instant of UTC."""

    at: datetime
    who: str
    text: str


def on(zone: str, day: str, *lines: tuple[str, str, str]) -> list[Line]:
    """Return the lines of a day, given as (what a clock in *zone* shows, who, what)."""
    return [Line(instant(f"{day}T{clock}", zone), who, text) for clock, who, text in lines]


def instant(local: str, zone: str) -> datetime:
    """Return the instant at which a clock in *zone* shows *local*, the first time if it does twice."""
    return datetime.fromisoformat(local).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Screenplay:
    """The lines of a life in *zone*, and the local time *until* which nothing more is to be said."""

    zone: str
    until: str
    lines: Sequence[Line]

    @property
    def end(self) -> datetime:
        """The instant of *until*."""
        return instant(self.until, self.zone)


def differences(screenplay: Screenplay, transcript: Sequence[Line]) -> str:
    """Return what of a life went otherwise, in local times; empty if nothing did."""
    zone = ZoneInfo(screenplay.zone)
    written, lived = (
        [f"{line.at.astimezone(zone):%a %d %b %H:%M:%S.%f %Z} {line.who:>8}: {line.text}" for line in lines]
        for lines in (screenplay.lines, transcript)
    )
    return "\n".join(difflib.unified_diff(written, lived, "as written", "as lived", lineterm=""))
