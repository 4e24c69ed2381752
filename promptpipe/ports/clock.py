"""Time, injected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import datetime


class Clock(Protocol):
    """Instants to store, and a steady clock to judge leases by. Waiting is Trio's."""

    def now(self) -> datetime:
        """Return the current instant, in UTC."""
        ...

    def boottime(self) -> float:
        """Return seconds on a clock that never goes back and counts the time a machine was suspended."""
        ...
