"""Rules for values that callers give. A broken one is an `InvalidArgumentError` that names field and rule."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from promptpipe.model.errors import InvalidArgumentError
from promptpipe.model.jobs import QUEUE_NAME
from promptpipe.model.participants import MAX_PHONE_DIGITS, MIN_PHONE_DIGITS, Address, AddressKind, e164
from promptpipe.model.text import storable

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_KEY = 200


def text(field: str, value: str, *, longest: int, needed: bool = False) -> str:
    """Return *value* as it is: at most *longest* characters, none of them NUL."""
    if needed and not value.strip():
        raise InvalidArgumentError(field, "must not be empty")
    if len(value) > longest:
        raise InvalidArgumentError(field, f"must have at most {longest} characters, not {len(value)}")
    if storable(value) != value:
        raise InvalidArgumentError(field, "must not contain NUL characters or lone surrogates")
    return value


def key(field: str, value: str | None) -> str | None:
    """Return a dedupe key; an empty one is none."""
    return text(field, value, longest=MAX_KEY) if value else None


def queue(field: str, value: str) -> str:
    """Return the name of a queue, which may be one that nobody has used so far."""
    if not QUEUE_NAME.fullmatch(value):
        raise InvalidArgumentError(field, "must have 1 to 100 letters, digits, or signs among ._:/-")
    return value


def number(field: str, value: int, allowed: range) -> int:
    """Return *value*, which is in *allowed*."""
    if value not in allowed:
        raise InvalidArgumentError(field, f"must be from {allowed[0]} to {allowed[-1]}")
    return value


def one_of(field: str, value: str, known: Collection[str]) -> str:
    """Return *value*, which is among *known*."""
    if value not in known:
        raise InvalidArgumentError(field, f"must be one of: {', '.join(sorted(known))}")
    return value


def phone(field: str, value: str, channel: str) -> Address:
    """Return the address that a phone number is on *channel*."""
    canonical = e164(value)
    if canonical is None:
        rule = f"must be an international number of {MIN_PHONE_DIGITS} to {MAX_PHONE_DIGITS} digits"
        raise InvalidArgumentError(field, f"{rule}, such as +16505551234")
    return Address(channel, AddressKind.PHONE, canonical)


def timezone(field: str, value: str) -> str:
    """Return the name of an IANA time zone."""
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidArgumentError(field, "must be an IANA time zone, such as America/Toronto") from None
    return value
