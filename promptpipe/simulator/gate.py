"""Keeps other people's web pages out.

The simulator asks nobody for a password, and a browser on the same machine lets any page send requests to loopback: by
a form or a script of its own (cross-site request forgery), or under its own name, pointed at 127.0.0.1 (DNS rebinding).
Browsers put the name into Host and the page's origin into Origin, and ask before they send JSON across origins.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from quart import Response, request

from promptpipe.config import is_loopback

if TYPE_CHECKING:
    from quart_trio import QuartTrio

HARMLESS = frozenset({"GET", "HEAD", "OPTIONS"})


def add_gate(app: QuartTrio) -> None:
    """Have *app* refuse what is not addressed to loopback, or comes from a page that is not the simulator's."""

    @app.before_request
    async def check() -> Response | None:
        host = request.headers.get("Host", "")
        if not _names_loopback(host):
            return _refusal(HTTPStatus.FORBIDDEN, f"{host!r} is not an address of the simulator's")
        if request.method in HARMLESS:
            return None
        origin = request.headers.get("Origin")
        if origin not in {None, f"{request.scheme}://{host}"}:
            return _refusal(HTTPStatus.FORBIDDEN, f"a page of {origin} has no business here")
        if request.path.startswith("/api/") and request.mimetype != "application/json":
            return _refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json")
        return None


def _names_loopback(host: str) -> bool:
    """Whether a Host header names this machine, whatever the port."""
    try:
        return is_loopback(f"{urlsplit(f'//{host}').hostname}:0")
    except ValueError:
        return False


def _refusal(status: HTTPStatus, error: str) -> Response:
    return Response(json.dumps({"error": error}), status=status.value, content_type="application/json")
