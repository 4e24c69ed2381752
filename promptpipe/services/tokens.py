"""The admin token, as calls and requests carry it."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEME = "Bearer "


def bearer_check(token: str) -> Callable[[str], bool]:
    """Return what tells whether an `authorization` is `Bearer <token>`, in a time that says nothing of the token."""
    expected = token.encode()

    def admits(authorization: str) -> bool:
        scheme, credentials = authorization[: len(SCHEME)], authorization[len(SCHEME) :]
        return scheme.lower() == SCHEME.lower() and hmac.compare_digest(credentials.encode(), expected)

    return admits
