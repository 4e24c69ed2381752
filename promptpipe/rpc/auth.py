"""Who may call: whoever knows the admin token. With mutual TLS, the handshake has decided before."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from grpclib.const import Status
from grpclib.exceptions import GRPCError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Authenticate = Callable[[Mapping[str, str | bytes]], None]
    """Raises `GRPCError` UNAUTHENTICATED for a call whose metadata does not say that it may be made."""

SCHEME = "Bearer "


def bearer_token(token: str) -> Authenticate:
    """Return a check that calls carry *token* as `authorization: Bearer <token>`."""
    expected = token.encode()

    def check(metadata: Mapping[str, str | bytes]) -> None:
        given = metadata.get("authorization", "")
        scheme, credentials = str(given)[: len(SCHEME)], str(given)[len(SCHEME) :]
        if scheme.lower() != SCHEME.lower() or not hmac.compare_digest(credentials.encode(), expected):
            raise GRPCError(Status.UNAUTHENTICATED, "the call needs `authorization: Bearer <admin token>`")

    return check


def everyone(metadata: Mapping[str, str | bytes]) -> None:
    """Let every call pass."""
    del metadata
