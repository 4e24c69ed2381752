"""The old registry of schedules: at which times somebody was prompted every day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from promptpipe.flows.conversation.tools.scheduler import FIXED, RANDOM, clock_time
from promptpipe.importing.reading import UnreadableError, as_instant, as_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, time

MAX_ENTRIES = 100
"""More are no registry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """An entry: what was chosen, and when. Without an *end* the prompts are for *start*."""

    old_id: str
    kind: str
    start: time
    end: time | None
    zone: str
    created_at: datetime


def registered(value: object) -> Sequence[Mapping[str, Any]]:
    """Return the entries of a registry, which is JSON in a text; raise `UnreadableError`."""
    if value is None or value == "":
        return ()
    entries = as_json(value, "it") if isinstance(value, str) else None
    if entries is None:
        return ()
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UnreadableError("it is no list of schedules")
    if len(entries) > MAX_ENTRIES:
        raise UnreadableError(f"it has more than {MAX_ENTRIES} schedules")
    return entries


def planned(entry: Mapping[str, Any], created_at: datetime) -> Plan:
    """Return what an entry plans, made at *created_at* unless it says when; raise `UnreadableError`."""
    kind = entry.get("type")
    old_id, zone, made_at = texts = [entry.get(name) or "" for name in ("id", "timezone", "created_at")]
    if kind not in (FIXED, RANDOM) or not old_id or not all(isinstance(value, str) for value in texts):
        raise UnreadableError("it is no schedule")
    if kind == FIXED:
        start, end = _time(entry, "fixed_time"), None
    else:
        start, end = _time(entry, "random_start_time"), _time(entry, "random_end_time")
        if start == end:
            raise UnreadableError("random_end_time is random_start_time")
    at = as_instant(made_at, "created_at") if made_at else created_at
    return Plan(old_id=old_id, kind=kind, start=start, end=end, zone=zone, created_at=at)


def _time(entry: Mapping[str, Any], name: str) -> time:
    value = entry.get(name)
    found = clock_time(value) if isinstance(value, str) else None
    if found is None:
        raise UnreadableError(f"{name} is no time of day")
    return found
