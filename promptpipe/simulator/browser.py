"""A phone in the browser: the files of the simulator's page, and how they are served."""

from __future__ import annotations

from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING

from quart import Response

from promptpipe.web.app import text

if TYPE_CHECKING:
    from quart_trio import QuartTrio

INDEX = "index.html"
STYLE = "text/css; charset=utf-8"
SCRIPT = "text/javascript; charset=utf-8"
FILES = {
    INDEX: "text/html; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "phone.css": STYLE,
    "panels.css": STYLE,
    "phone.js": SCRIPT,
    "api.js": SCRIPT,
    "bubbles.js": SCRIPT,
    "composer.js": SCRIPT,
    "conversation.js": SCRIPT,
    "drawers.js": SCRIPT,
    "people.js": SCRIPT,
    "weather.js": SCRIPT,
}
"""All that is served, with its content type."""

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def add_page(app: QuartTrio) -> None:
    """Serve the page at `/` and its files under `/page/`."""
    folder = files("promptpipe.simulator") / "page"
    contents = {name: (folder / name).read_bytes() for name in FILES}

    def file(name: str) -> Response:
        if name not in contents:
            return text(HTTPStatus.NOT_FOUND)
        return Response(contents[name], headers=HEADERS, content_type=FILES[name])

    @app.get("/")
    async def index() -> Response:
        return file(INDEX)

    @app.get("/page/<name>")
    async def page(name: str) -> Response:
        return file(name)
