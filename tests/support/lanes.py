"""Lanes as they should be, for models of what they hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from promptpipe.model.leases import KEPT_SHARE, SUSPECT_FROM
from tests.support.database import LEASE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from promptpipe.model.leases import Lease


LaneState: TypeAlias = tuple[float | None, float, str | None, bool, int]
"""Due, pace, worker, whether it is leased, and crashes."""


@dataclass
class ModelLane:
    """A lane. *due* is when it may be claimed, in seconds; None when there is nothing to claim it for."""

    key: str
    priority: int = 0
    due: float | None = None
    pace: float = 0.0
    worker: str | None = None
    lease: Lease | None = None
    crashes: int = 0

    @property
    def suspect(self) -> bool:
        return self.crashes + (self.worker is not None) >= SUSPECT_FROM

    def append(self, now: float) -> None:
        if self.due is None:
            self.due = max(now, self.pace)

    def slow_down(self, until: float) -> None:
        self.pace = max(self.pace, until)
        if self.worker is None and self.due is not None:
            self.due = max(self.due, until)

    def set_due(self, due: float | None) -> None:
        self.due = None if due is None else max(due, self.pace)

    def release(self, due: float | None) -> None:
        self.set_due(due)
        self.worker, self.lease, self.crashes = None, None, 0

    def abandon(self, due: float | None) -> None:
        self.set_due(due)
        self.worker, self.lease, self.crashes = None, None, self.crashes + 1

    def keep(self, now: float, *, orderly: bool) -> None:
        assert self.due is not None
        if self.due < now + KEPT_SHARE * LEASE_SECONDS or self.crashes:
            self.due = now + LEASE_SECONDS
        if orderly:
            self.crashes = 0

    def take(self, worker: str, now: float) -> None:
        self.crashes += self.worker is not None
        self.worker, self.lease, self.due = worker, None, now + LEASE_SECONDS


def claim(
    lanes: Iterable[ModelLane], now: float, worker: str, limit: int, held: Collection[str]
) -> tuple[list[ModelLane], list[ModelLane]]:
    """Lease due lanes, and return them and the suspect among a list of its own."""
    due = sorted(
        (lane.priority, lane.due, lane.key, lane)
        for lane in lanes
        if lane.due is not None and lane.due <= now and lane.key not in held
    )
    claimed = [lane for *_, lane in due if not lane.suspect][:limit]
    suspects = [lane for *_, lane in due if lane.suspect][:1] if len(claimed) < limit else []
    for lane in claimed + suspects:
        lane.take(worker, now)
    return claimed, suspects


def holder(lanes: Iterable[ModelLane], lease: Lease) -> ModelLane | None:
    """Return the lane that is held under *lease*, if one is."""
    return next((lane for lane in lanes if lane.lease == lease), None)


def states(lanes: Iterable[ModelLane]) -> dict[str, LaneState]:
    """Return how lanes are, by key."""
    return {lane.key: (lane.due, lane.pace, lane.worker, lane.worker is not None, lane.crashes) for lane in lanes}
