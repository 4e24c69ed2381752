"""How values are kept in SQLite: instants and spans as whole microseconds (instants since 1970), JSON as text."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        "updated_at",
    }
)
"""The columns that are instants, in tables and in what statements select."""

SPANS = frozenset({"blocked", "due_in"})
"""The columns that are spans."""


def micros(instant: datetime) -> int:
    """Return *instant* as microseconds since 1970, exactly."""
    return (instant - _EPOCH) // _MICROSECOND


def instant(value: int) -> datetime:
    """Return the UTC instant that `micros` made *value* from."""
    return _EPOCH + timedelta(microseconds=value)


def stored(values: Mapping[str, object]) -> dict[str, object]:
    """Return the values of a statement as SQLite takes them."""
    return {name: _stored(value) for name, value in values.items()}


def _stored(value: object) -> object:
    match value:
        case datetime():
            return micros(value)
        case timedelta():
            return value // _MICROSECOND
        case list():
            return json.dumps(value)
    return value


class Row(sqlite3.Row):
    """A row whose instants and spans are datetimes and timedeltas."""

    def __getitem__(self, column: Any) -> Any:
        """Return the value of *column*."""
        value = super().__getitem__(column)
        if value is None:
            return None
        if column in INSTANTS:
            return instant(value)
        if column in SPANS:
            return timedelta(microseconds=value)
        return value
