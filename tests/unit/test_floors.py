"""From where claims look: as far as the last one came, and never where what is committed now would be passed over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from promptpipe.storage.transactions.floors import START, Floors

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("claimed", "floor"),
    [
        ([(0, -60.0, 0.0)], -60.0),
        ([(0, -60.0, 0.0), (0, -30.0, 0.0), (0, -90.0, 0.0)], -30.0),
        ([(0, -0.5, 0.0)], -1.0),
        ([(0, -60.0, 0.0), (0, -3700.0, -3600.0)], -3601.0),
    ],
    ids=["last claimed", "latest", "late commits", "clock set back"],
)
def test_floor_is_where_the_last_claim_came_to(claimed: list[tuple[int, float, float]], floor: float) -> None:
    """A database that takes over may have a clock that is behind: what becomes due by it is not passed over."""
    floors = Floors(2)
    for level, due, now in claimed:
        floors.raise_to("q", [(level, NOON + due * SECOND, NOON + now * SECOND)])
    assert floors.of("q", thorough=False) == [NOON + floor * SECOND, START]
    assert floors.of("q", thorough=True) == floors.of("other", thorough=False) == [START, START]
