"""How long to wait before the next attempt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_MAX_ATTEMPTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential backoff with full jitter: uniform in [0, min(cap, base · factorⁿ⁻¹)] seconds.

    Full jitter spreads a crowd of failures best for the least total work (M. Brooker, "Exponential Backoff
    And Jitter", AWS Architecture Blog, 2015).
    """

    base: float
    cap: float
    factor: float = 2.0

    def limit(self, attempt: int) -> float:
        """Return the longest delay after failed *attempt* (1 for the first), in seconds."""
        # The exponent is bounded so that a huge attempt number cannot overflow a float.
        return min(self.cap, self.base * self.factor ** min(attempt - 1, 64))

    def delay(self, attempt: int, random: Callable[[], float]) -> float:
        """Return the delay after failed *attempt*; *random* gives a number in [0, 1)."""
        return self.limit(attempt) * random()


JOB_BACKOFF = Backoff(base=2.0, cap=3600.0)
MAILBOX_BACKOFF = Backoff(base=1.0, cap=30.0)
STORE_BACKOFF = Backoff(base=0.1, cap=5.0)

MAILBOX_BLOCK_LIMIT = 120.0
"""Seconds for which one event may hold up its conversation, in all, before it goes aside."""
