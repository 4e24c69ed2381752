"""A clock that tests move by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class ManualClock:
    """`ports.clock.Clock` that stands still until told otherwise."""

    def __init__(self) -> None:
        self._now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
        self._boottime = 1000.0
        self.on_change: Callable[[], object] = lambda: None

    def now(self) -> datetime:
        return self._now

    def boottime(self) -> float:
        return self._boottime

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass, on both clocks."""
        self._now += timedelta(seconds=seconds)
        self._boottime += seconds
        self.on_change()
