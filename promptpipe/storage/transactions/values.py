"""How values go in and out of statements: spans of time, and JSON as text."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def span(seconds: float) -> timedelta:
    """Return *seconds* as a span of time."""
    return timedelta(seconds=seconds)


def to_json(value: Mapping[str, object]) -> str:
    """Return a JSON object as compact text."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def from_json(text: str) -> dict[str, object]:
    """Return the JSON object in *text*; raise `ValueError` when it is something else."""
    if text == "{}":
        return {}
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {type(value).__name__}")  # noqa: TRY004
    return value
