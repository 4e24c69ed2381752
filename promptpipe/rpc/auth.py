"""Who may call: whoever knows the admin token. With mutual TLS, the handshake has decided before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from promptpipe.services.tokens import bearer_check

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Authenticate = Callable[[Mapping[str, str | bytes]], None]
    """Raises `GRPCError` UNAUTHENTICATED for a call whose metadata does not say that it may be made."""


def bearer_token(token: str) -> Authenticate:
    """Return a check that calls carry *token* as `authorization: Bearer <token>`."""
    admits = bearer_check(token)

    def check(metadata: Mapping[str, str | bytes]) -> None:
        if not admits(str(metadata.get("authorization", ""))):
            raise GRPCError(Status.UNAUTHENTICATED, "the call needs `authorization: Bearer <admin token>`")

    return check


def everyone(metadata: Mapping[str, str | bytes]) -> None:
    """Let every call pass."""
    del metadata
