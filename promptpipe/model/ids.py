"""Identifiers: UUIDv7 as canonical text, so that rows sort by the time they were made.

RFC 9562, section 5.7. The twelve bits after the millisecond hold its fraction (section 6.2, method 3), and
an id is always greater than the one made before it by the same source.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

ParticipantId = NewType("ParticipantId", str)
JobId = NewType("JobId", str)
EventId = NewType("EventId", str)
MessageId = NewType("MessageId", str)
ResponseId = NewType("ResponseId", str)
ScheduleId = NewType("ScheduleId", str)
WorkerId = NewType("WorkerId", str)

_RANDOM_BITS = 62
_VERSION = 0x7 << 76
_VARIANT = 0b10 << 62


class IdSource:
    """Makes UUIDv7 text from an injected clock and injected randomness; any thread may call it."""

    def __init__(self, now: Callable[[], datetime], random_bits: Callable[[int], int]) -> None:
        self._now = now
        self._random_bits = random_bits
        self._last = 0
        self._lock = threading.Lock()

    def __call__(self) -> str:
        """Return a new id, greater than all before it from this source."""
        micros = int(self._now().timestamp() * 1_000_000)
        # 48 bits of milliseconds, then the fraction of the millisecond scaled to 12 bits.
        ticks = (micros // 1000) << 12 | (micros % 1000) * 4096 // 1000
        with self._lock:
            self._last = ticks = max(ticks, self._last + 1)
        value = (ticks >> 12) << 80 | _VERSION | (ticks & 0xFFF) << 64 | _VARIANT
        text = f"{value | self._random_bits(_RANDOM_BITS):032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def first_id(at: datetime) -> str:
    """Return what all ids made from *at* on are greater than, and all made a millisecond before it are not."""
    text = f"{int(at.timestamp() * 1000):012x}"
    return f"{text[:8]}-{text[8:]}"
