"""An HTTP server as a part of the service: bound early, drained with the others."""

from __future__ import annotations

import errno
import logging
import os
import socket
from typing import TYPE_CHECKING, cast

import trio
from hypercorn.config import Config, Sockets
from hypercorn.utils import wrap_app

from promptpipe.model.errors import AddressInUseError, SettingsError
from promptpipe.web.guard import worker_serve

if TYPE_CHECKING:
    from hypercorn.typing import ASGIFramework

BACKLOG = 1024
READ_SECONDS = 30
"""How long a peer may be silent, also while we work on its request."""
KEEP_ALIVE_SECONDS = 30.0


def listen(host: str, port: int, name: str) -> socket.socket:
    """Return a listening socket; raise a plain error when the address is taken or not ours. *name* is the setting's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressInUseError(f"{host}:{port} is in use by another program; set {name} to another port") from None
        raise SettingsError(f"{name}: cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}") from None
    return listener


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
