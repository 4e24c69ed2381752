"""What recovery found and did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from promptpipe.model.ids import JobId, ParticipantId

MAX_FAILURES_KEPT = 100
"""Failures named in a component's report; beyond them only the count goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LostTimer:
    """A job id in a flow's state without a live job behind it. *ended* says the job is known to have ended."""

    participant_id: ParticipantId
    job_id: JobId
    ended: bool
    state_data: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentReport:
    """What recovering one component came to. *failures* holds (what, why) for the first of *failed*."""

    name: str
    checked: int = 0
    restored: int = 0
    failed: int = 0
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
