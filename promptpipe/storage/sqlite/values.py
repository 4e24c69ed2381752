"""How values are kept in SQLite: instants and spans as whole microseconds (instants since 1970), JSON as text."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

INSTANTS = frozenset(
    {
        "created_at",
        "delivered_at",
        "doubt_from",
        "doubt_until",
        "due_at",
        "ended_at",
        "expires_at",
        "failed_at",
        "finished_at",
        "last_at",
        "next_at",
        "not_before",
        "pace_at",
        "paused_until",
        "processed_at",
        "provider_time",
        "read_at",
        "received_at",
        "request_end",
        "rerun_at",
        "run_at",
        "sent_at",
        "started_at",
        "until",
        "updated_at",
    }
)
"""The columns that are instants, in tables and in what statements select."""

SPANS = frozenset({"blocked", "due_in", "lag", "spread"})
"""The columns that are spans."""


def micros(instant: datetime) -> int:
    """Return *instant* as microseconds since 1970, exactly."""
    return (instant - _EPOCH) // _MICROSECOND


def instant(value: int) -> datetime:
    """Return the UTC instant that `micros` made *value* from."""
    return _EPOCH + timedelta(microseconds=value)


def span(value: int) -> timedelta:
    """Return *value* microseconds as a span."""
    return timedelta(microseconds=value)


_AS_STORED: dict[type, Callable[[Any], object]] = {
    datetime: micros,
    timedelta: lambda value: value // _MICROSECOND,
    list: json.JSONEncoder(default=micros).encode,
}


def as_stored(values: dict[str, object]) -> dict[str, object]:
    """Put what SQLite takes into the place of *values*, and return them."""
    for name, value in values.items():
        if convert := _AS_STORED.get(type(value)):
            values[name] = convert(value)
    return values


class Columns:
    """The columns that a statement selects, and how their values are to be read."""

    def __init__(self, description: Sequence[Sequence[Any]]) -> None:
        self._names = [str(column[0]) for column in description]
        self._conversions = [
            (name, instant if name in INSTANTS else span) for name in self._names if name in INSTANTS | SPANS
        ]

    def row(self, values: Sequence[object]) -> dict[str, Any]:
        """Return a row by its columns' names."""
        row: dict[str, Any] = dict(zip(self._names, values, strict=True))
        for name, convert in self._conversions:
            if row[name] is not None:
                row[name] = convert(row[name])
        return row
