"""An HTTP server as a part of the service: bound early, drained with the others."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, cast

import trio
from hypercorn.config import Config, Sockets
from hypercorn.utils import wrap_app

from promptpipe.web.guard import worker_serve

if TYPE_CHECKING:
    import socket

    from hypercorn.typing import ASGIFramework

READ_SECONDS = 30
"""How long a peer may be silent, also while we work on its request."""
KEEP_ALIVE_SECONDS = 30.0


class HttpServer:
    """Serves an ASGI application on a listening socket."""

    def __init__(self, name: str, app: ASGIFramework, listener: socket.socket, *, grace: float) -> None:
        self.name = name
        self._app = app
        self._listener = listener
        self._grace = grace
        self._stop = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until stopped and the requests at hand are answered."""
        config = Config()
        config.errorlog = logging.getLogger("hypercorn.error")
        config.graceful_timeout = self._grace
        config.read_timeout = READ_SECONDS
        config.keep_alive_timeout = KEEP_ALIVE_SECONDS
        config.include_server_header = False
        config.websocket_max_message_size = 0
        sockets = Sockets(secure_sockets=[], insecure_sockets=[self._listener], quic_sockets=[])
        await worker_serve(
            wrap_app(self._app, config.wsgi_max_body_size, "asgi"),
            config,
            sockets=sockets,
            shutdown_trigger=self._stop.wait,
            task_status=cast("trio.TaskStatus[list[str]]", task_status),
        )

    def stop(self) -> None:
        """Accept no more connections."""
        self._stop.set()
