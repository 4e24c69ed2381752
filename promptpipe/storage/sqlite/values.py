"""How values are kept in SQLite: instants as microseconds since 1970, JSON as text."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def micros(instant: datetime) -> int:
    """Return *instant* as microseconds since 1970, exactly."""
    return (instant - _EPOCH) // _MICROSECOND


def instant(value: int) -> datetime:
    """Return the UTC instant that `micros` made *value* from."""
    return _EPOCH + timedelta(microseconds=value)


def maybe_micros(value: datetime | None) -> int | None:
    """Return `micros`, or None for None."""
    return None if value is None else micros(value)


def maybe_instant(value: int | None) -> datetime | None:
    """Return `instant`, or None for None."""
    return None if value is None else instant(value)


def span(seconds: float) -> int:
    """Return *seconds* as microseconds."""
    return round(seconds * 1_000_000)


def seconds(span_: int) -> float:
    """Return microseconds as seconds."""
    return span_ / 1_000_000


def to_json(value: Mapping[str, object]) -> str:
    """Return a JSON object as compact text."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def from_json(text: str) -> dict[str, object]:
    """Return the JSON object in *text*; raise `ValueError` when it is something else."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {type(value).__name__}")  # noqa: TRY004
    return value
