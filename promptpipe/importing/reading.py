"""Values in old rows. All of them are text; what is missing or NULL is None."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

from promptpipe.model.text import storable, storable_json

if TYPE_CHECKING:
    from collections.abc import Mapping

OldRow: TypeAlias = "Mapping[str, str | None]"

MAX_CHARS = 1 << 20
"""Characters of one value; sources read no more than one beyond, so that a row cannot fill the memory."""
MAX_NAME = 255
"""Characters of what is looked for: ids and keys."""
MAX_DIGITS = 18
"""Of a whole number."""


class UnreadableError(Exception):
    """A row, or a part of one, cannot be understood; the text says why, without repeating what people wrote."""


def given(row: OldRow, name: str) -> str | None:
    """Return a text made storable; None when there is none. Raise `UnreadableError` when it is too long."""
    value = row.get(name)
    if value is None or not value.strip():
        return None
    if len(value) > MAX_CHARS:
        raise UnreadableError(f"{name} has more than {MAX_CHARS} characters")
    return storable(value)


def text(row: OldRow, name: str) -> str:
    """Return a text that must be there; raise `UnreadableError`."""
    value = given(row, name)
    if value is None:
        raise UnreadableError(f"{name} is missing")
    return value


def name_in(row: OldRow, name: str) -> str | None:
    """Return a text that is looked for by others; None when there is none. Raise `UnreadableError` when too long."""
    value = given(row, name)
    if value is not None and len(value) > MAX_NAME:
        raise UnreadableError(f"{name} has more than {MAX_NAME} characters")
    return value


def instant(row: OldRow, name: str) -> datetime:
    """Return a time that must be there; raise `UnreadableError`."""
    return as_instant(text(row, name), name)


def as_instant(value: str, name: str) -> datetime:
    """Return a time written as ISO 8601, or as whole seconds since 1970; without an offset it is UTC's."""
    try:
        if value.strip().isdecimal() and len(value) <= MAX_DIGITS:
            return datetime.fromtimestamp(int(value), UTC)
        # Go writes "2026-03-01 09:30:00.5 +0000 UTC" where it prints a time instead of formatting it.
        date, _, rest = value.strip().replace("T", " ").partition(" ")
        clock, _, offset = rest.partition(" ")
        found = datetime.fromisoformat(f"{date}T{clock}{offset.partition(' ')[0]}")
    except (ValueError, OverflowError, OSError):
        raise UnreadableError(f"{name} is no time") from None
    found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    if not 1970 <= found.year <= 9000:  # noqa: PLR2004  beyond lies what was never set, and what cannot be stored
        raise UnreadableError(f"{name} is no time that can be")
    return found


def whole(row: OldRow, name: str) -> int:
    """Return a whole number from 0 on, 0 when there is none; raise `UnreadableError`."""
    value = (given(row, name) or "0").strip()
    if not (value.isascii() and value.isdecimal() and len(value) <= MAX_DIGITS):
        raise UnreadableError(f"{name} is no whole number")
    return int(value)


def json_object(row: OldRow, name: str) -> dict[str, object]:
    """Return a JSON object, empty when there is none; raise `UnreadableError`."""
    value = given(row, name)
    found = {} if value is None else as_json(value, name)
    if not isinstance(found, dict):
        raise UnreadableError(f"{name} is no JSON object")
    return found


def as_json(value: str, name: str) -> object:
    """Return what JSON in *value* says, its texts made storable; raise `UnreadableError`."""
    try:
        return storable_json(json.loads(value, parse_constant=_number, parse_float=_number))
    except (ValueError, RecursionError):
        raise UnreadableError(f"{name} is no JSON") from None


def _number(written: str) -> float:
    """Return a number; raise `ValueError` for what no database takes for one."""
    number = float(written)
    if not math.isfinite(number):
        raise ValueError(written)
    return number
