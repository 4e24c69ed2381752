"""What recovery found and did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from promptpipe.model.ids import JobId, ParticipantId
    from promptpipe.model.leases import Work

MAX_NAMED = 100
"""Repairs, and failures, named in a component's report; beyond them only the count goes on."""


@dataclass(frozen=True, slots=True)
class Span:
    """Some *count* of a flow's active participants: all whose ids are *first*, *last*, or between them."""

    first: str
    last: str
    count: int

    @classmethod
    def of(cls, participant_id: ParticipantId) -> Span:
        """Return the span that is one participant."""
        return cls(participant_id, participant_id, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LostTimer:
    """A timer in a flow's state without a live job behind it. *ended* says the job is known to have ended.

    *job_id* is None when the state names no job, but something that waits for this timer.
    """

    participant_id: ParticipantId
    job_id: JobId | None
    ended: bool
    state_data: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class StuckLane:
    """A lane with something in it that nobody would come for."""

    work: Work
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentReport:
    """What recovering one component came to.

    *repairs* and *failures* hold (what, how or why) for the first of *restored* and *failed*. Where nothing was to be
    changed, *restored* and *repairs* are what would have been.
    """

    name: str
    checked: int = 0
    restored: int = 0
    failed: int = 0
    repairs: tuple[tuple[str, str], ...] = ()
    failures: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryReport:
    """The outcome of one `recover_all`, or of its part so far."""

    started_at: datetime
    finished_at: datetime
    components: tuple[ComponentReport, ...]

    @property
    def failed(self) -> int:
        """How many recoveries failed, over all components."""
        return sum(component.failed for component in self.components)

    @property
    def is_clean(self) -> bool:
        """Whether nothing needed repair."""
        return not any(component.restored or component.failed for component in self.components)
