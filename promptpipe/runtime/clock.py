"""The clock of a running service."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class SystemClock:
    """`ports.clock.Clock` on this machine's clocks."""

    def now(self) -> datetime:
        """See `Clock.now`."""
        return datetime.now(UTC)  # noqa: TID251  the one place that reads the wall clock

    def boottime(self) -> float:
        """See `Clock.boottime`."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)
