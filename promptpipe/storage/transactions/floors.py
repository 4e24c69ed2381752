"""From where claims look, so that they do not step over all that is gone again and again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

START = datetime.fromtimestamp(0, UTC)
LATE_COMMITS = timedelta(seconds=1)


class Floors:
    """How far claims have come in each queue, on each of *levels* levels of priority.

    The index of a database that many write keeps the entries of rows that are gone until nobody can see them any more,
    and some reader may sit on a snapshot for hours. What comes before a floor (due at an earlier time, or a lease that
    ran out) is found by the next thorough claim.
    """

    def __init__(self, levels: int) -> None:
        self._nowhere = [START] * levels
        self._floors: dict[str, list[datetime]] = {}

    def of(self, queue: str, *, thorough: bool) -> list[datetime]:
        """Return a floor for each level of *queue*."""
        return self._nowhere if thorough else self._floors.get(queue, self._nowhere)

    def raise_to(self, queue: str, claimed: Iterable[tuple[int, datetime, datetime]]) -> None:
        """Note what was *claimed*: on which level, since when it was due, and the time.

        What is due is committed a little later than that, so the last second stays; also when the clock was set back.
        """
        floors = self._floors.setdefault(queue, list(self._nowhere))
        for level, due_at, now in claimed:
            floors[level] = min(max(floors[level], due_at), now - LATE_COMMITS)
