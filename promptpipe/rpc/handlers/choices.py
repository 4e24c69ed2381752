"""Oneofs. The generated code takes a message in which several members are set, as no well-made client sends it."""

from __future__ import annotations

from promptpipe.model.errors import InvalidArgumentError


def exactly_one(message: object, *members: str) -> str:
    """Return which of *members* is set in *message*; raise `InvalidArgumentError` unless that is exactly one."""
    present = [member for member in members if getattr(message, member) is not None]
    if len(present) != 1:
        raise InvalidArgumentError(members[0], f"exactly one must be set of: {', '.join(members)}")
    return present[0]
