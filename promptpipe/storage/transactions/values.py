"""How values go in and out of statements: spans of time, and JSON as text."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from promptpipe.model.leases import Lease


_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)  # `json.dumps` makes one each time


def micros(at: datetime | None) -> int | None:
    """Return an instant as JSON has it: microseconds since 1970."""
    return None if at is None else (at - _EPOCH) // _MICROSECOND


def span(seconds: float) -> timedelta:
    """Return *seconds* as a span of time."""
    return timedelta(seconds=seconds)


def to_json(value: Mapping[str, object] | Sequence[Mapping[str, object]]) -> str:
    """Return a JSON object, or an array of them, as compact text."""
    return _JSON.encode(value)


def fences(leases: Iterable[Lease]) -> str:
    """Return a JSON object: the fences of *leases* by their keys, and of two with one key the later, which may hold."""
    return to_json({lease.key: lease.fence for lease in sorted(leases, key=lambda lease: lease.fence)})


def from_json(text: str) -> dict[str, object]:
    """Return the JSON object in *text*; raise `ValueError` when it is something else."""
    if text == "{}":
        return {}
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {type(value).__name__}")  # noqa: TRY004
    return value
