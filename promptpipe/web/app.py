"""The HTTP routes of the service."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog
from quart import Response, request
from quart_trio import QuartTrio

from promptpipe.model.errors import (
    MalformedBodyError,
    PromptPipeError,
    SignatureError,
    StoreUnavailableError,
    VerificationError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from promptpipe.services.inbound import Inbound
    from promptpipe.services.readiness import Readiness

MAX_BODY = 4 * 1024 * 1024
"""Bytes of a request; Meta's webhooks have up to 3 MB."""
BODY_SECONDS = 20
"""How long a body may take to arrive."""
RETRY_AFTER_SECONDS = "5"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

ANSWERS: Mapping[type[PromptPipeError], HTTPStatus] = {
    SignatureError: HTTPStatus.UNAUTHORIZED,
    VerificationError: HTTPStatus.FORBIDDEN,
    MalformedBodyError: HTTPStatus.BAD_REQUEST,
    StoreUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""What our errors are to a peer. All others are answered 500, with a log entry and no text."""

log = structlog.get_logger(__name__)


def make_app(
    inbound: Mapping[str, Inbound],
    readiness: Readiness,
    metrics: Callable[[], Awaitable[bytes]] | None = None,
    admits: Callable[[str], bool] = lambda _: True,
) -> QuartTrio:
    """Return the application; *inbound* holds the webhook of each channel by name.

    *metrics* is a page for Prometheus, if anybody may see it: whose `Authorization` is one that *admits* knows.
    """
    app = bare_app(__name__)
    _add_webhooks(app, inbound)
    _add_health(app, readiness)
    if metrics is not None:
        _add_metrics(app, metrics, admits)

    @app.errorhandler(PromptPipeError)
    async def refused(error: PromptPipeError) -> Response:
        status = ANSWERS.get(type(error))
        if status is None:
            log.error("request failed", path=request.path, exc_info=error)
            return text(HTTPStatus.INTERNAL_SERVER_ERROR)
        log.warning("request refused", path=request.path, status=status.value, code=error.code)
        answer = text(status)
        if status is HTTPStatus.SERVICE_UNAVAILABLE:
            answer.headers["Retry-After"] = RETRY_AFTER_SECONDS
        return answer

    return app


def _add_webhooks(app: QuartTrio, inbound: Mapping[str, Inbound]) -> None:
    @app.get("/webhooks/<channel>")
    async def handshake(channel: str) -> Response:
        if channel not in inbound:
            return text(HTTPStatus.NOT_FOUND)
        return text(HTTPStatus.OK, inbound[channel].handshake(request.args))

    @app.post("/webhooks/<channel>")
    async def webhook(channel: str) -> Response:
        if channel not in inbound:
            return text(HTTPStatus.NOT_FOUND)
        headers = {name.lower(): value for name, value in request.headers.items()}
        await inbound[channel].receive(
            headers, await request.get_data(cache=False, as_text=False, parse_form_data=False)
        )
        return text(HTTPStatus.OK)


def _add_health(app: QuartTrio, readiness: Readiness) -> None:
    @app.get("/livez")
    async def livez() -> Response:
        return text(HTTPStatus.OK, "alive")

    @app.get("/readyz")
    async def readyz() -> Response:
        if readiness.obstacle is None:
            return text(HTTPStatus.OK, "ready")
        return text(HTTPStatus.SERVICE_UNAVAILABLE, readiness.obstacle)


def _add_metrics(app: QuartTrio, page: Callable[[], Awaitable[bytes]], admits: Callable[[str], bool]) -> None:
    @app.get("/metrics")
    async def metrics() -> Response:
        if not admits(request.headers.get("Authorization", "")):
            refusal = text(HTTPStatus.UNAUTHORIZED)
            refusal.headers["WWW-Authenticate"] = "Bearer"
            return refusal
        return Response(await page(), content_type=METRICS_TYPE)


def bare_app(name: str) -> QuartTrio:
    """Return an application without routes, with the limits that all of ours have."""
    app = QuartTrio(name, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.config["BODY_TIMEOUT"] = BODY_SECONDS
    return app


def text(status: HTTPStatus, body: str | None = None) -> Response:
    """Return a plain answer; without a *body*, the status says it."""
    return Response(
        status.phrase if body is None else body, status=status.value, content_type="text/plain; charset=utf-8"
    )
