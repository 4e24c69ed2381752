"""Asking a running service."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import trio
import typer

from promptpipe.cli.start import EXIT_FAILED, EXIT_USAGE, fail, start

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from grpclib.client import Channel

    from promptpipe.config import ClientSettings

T = TypeVar("T")

Server = Annotated[
    str | None, typer.Option(help="Overrides PROMPTPIPE_CLIENT__SERVER.", metavar="HOST:PORT", show_default=False)
]

CALL_SECONDS = 30.0
ORDER_SECONDS = 180.0
"""For what comes in its turn in somebody's mailbox, and may be written by a language model."""
PAGE_SIZE = 200


def ask(question: Callable[[Channel], Awaitable[T]], server: str | None) -> T:
    """Return the answer to *question* of the service that the settings name, or of *server*; exit when it fails."""
    from grpclib.const import Status  # noqa: PLC0415
    from grpclib.exceptions import GRPCError  # noqa: PLC0415

    settings = start()
    token = settings.admin_token
    target = server or settings.client.server or settings.grpc_bind
    try:
        tls = _tls(settings.client)
        return trio.run(partial(_ask, question, target, None if token is None else token.get_secret_value(), tls))
    except OSError as error:
        fail(f"PROMPTPIPE_CLIENT__…: the files for TLS cannot be used: {error}", EXIT_USAGE)
    except GRPCError as error:
        code = EXIT_USAGE if error.status is Status.INVALID_ARGUMENT else EXIT_FAILED
        fail(f"{error.status.name}: {error.message}", code)


def answer(
    stub: Callable[[Any], Any], method: str, request: object, server: str | None, *, seconds: float = CALL_SECONDS
) -> Any:
    """Return the answer of one call; exit when it fails."""
    return ask(lambda channel: getattr(stub(channel), method)(request, timeout=seconds), server)


async def _ask(
    question: Callable[[Channel], Awaitable[T]], target: str, token: str | None, tls: ssl.SSLContext | None
) -> T:
    from promptpipe.client import open_channel  # noqa: PLC0415

    async with open_channel(target, token=token, tls=tls) as channel:
        return await question(channel)


def _tls(client: ClientSettings) -> ssl.SSLContext | None:
    if client.ca_file is None:
        return None
    from promptpipe.client import client_tls  # noqa: PLC0415

    return client_tls(client.ca_file, client.cert_file, client.key_file)


async def every(page_of: Callable[..., Awaitable[Any]], request: Any, name: str, limit: int) -> list[Any]:
    """Return the first *limit* items of a list, page by page; *name* is the field that holds a page's items."""
    items: list[Any] = []
    while len(items) < limit:
        request.page_size = min(PAGE_SIZE, limit - len(items))
        page = await page_of(request, timeout=CALL_SECONDS)
        items += getattr(page, name)
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    return items
