"""Listening sockets, for every server of ours."""

from __future__ import annotations

import errno
import os
import socket

from promptpipe.model.errors import AddressInUseError, SettingsError

BACKLOG = 1024


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
