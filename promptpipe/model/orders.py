"""Where operators' orders stand."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Standing(Enum):
    """Where an order stands."""

    WAITING = "waiting"
    """In its mailbox, or in the hands of a worker."""
    DONE = "done"
    REFUSED = "refused"
    ASIDE = "aside"
    """It could not be handled, and was set aside."""


@dataclass(frozen=True, slots=True)
class OrderStatus:
    """Where an order stands, and why it was refused or could not be handled."""

    standing: Standing
    reason: str = ""
