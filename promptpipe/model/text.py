"""Text from outside made storable: what every back end, JSON parser and terminal accepts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """Return *text* with NUL and lone surrogates replaced by U+FFFD.

    PostgreSQL stores neither in text or jsonb, and SQLite's driver cannot encode a lone surrogate.
    """
    return _UNSTORABLE.sub(REPLACEMENT, text)


def storable_json(value: object) -> object:
    """Return the JSON *value* with every string and key in it made `storable`."""
    match value:
        case str():
            return storable(value)
        case list():
            return [storable_json(item) for item in value]
        case dict():
            return {storable(str(key)): storable_json(item) for key, item in value.items()}
    return value


def shortened(text: str, limit: int) -> str:
    """Return *text* cut to at most *limit* characters, the last of them an ellipsis when cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def as_text(data: Mapping[str, object], key: str) -> str | None:
    """Return the string under *key*, or None when it is absent or not a string."""
    value = data.get(key)
    return value if isinstance(value, str) else None
