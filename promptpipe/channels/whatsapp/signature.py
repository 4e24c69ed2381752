"""Meta's webhook signature: HMAC-SHA256 with the app secret over the exact bytes of the body."""

from __future__ import annotations

import hmac

HEADER = "x-hub-signature-256"
_PREFIX = "sha256="


def sign(secret: str, body: bytes) -> str:
    """Return the value of the signature header for *body*."""
    return _PREFIX + hmac.new(secret.encode(), body, "sha256").hexdigest()


def is_signed(secret: str, body: bytes, header: str | None) -> bool:
    """Whether *header* is the signature of *body*; compared in constant time."""
    return header is not None and hmac.compare_digest(sign(secret, body).encode(), header.encode())
