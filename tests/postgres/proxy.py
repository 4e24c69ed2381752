"""A network between client and server that can fall silent."""

from __future__ import annotations

import struct
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import trio
from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

# https://www.postgresql.org/docs/18/protocol-message-formats.html
SSL_REQUEST = struct.pack("!ii", 8, 80877103)


class Proxy:
    """Passes bytes on in both directions, until told otherwise."""

    def __init__(self, upstream: str, tls: ssl.SSLContext | None = None) -> None:
        parameters = conninfo_to_dict(upstream)
        self._upstream = upstream
        self._tls = tls
        self._host = str(parameters["host"])
        self._port = int(str(parameters["port"]))
        self.url = ""
        self.silent = False
        """Whether what the server says is kept back, while everything stays connected."""

        self.end_kept_back = False
        """Whether nobody is told that the server has hung up."""

        self.accepted = 0

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve until canceled."""
        async with trio.open_nursery() as nursery:
            [listener] = await nursery.start(partial(trio.serve_tcp, self._serve, 0, host="127.0.0.1"))
            port = listener.socket.getsockname()[1]
            self.url = make_conninfo(self._upstream, host="127.0.0.1", port=port)
            task_status.started()

    async def _serve(self, client: trio.SocketStream) -> None:
        self.accepted += 1
        async with client:
            with suppress(OSError, trio.BrokenResourceError):
                server = await trio.open_tcp_stream(self._host, self._port)
                async with server, trio.open_nursery() as nursery:
                    inner = await self._encrypted(client, server)
                    nursery.start_soon(self._upstream_from, inner, server)
                    await self._downstream_to(inner, server)
                    if self.end_kept_back:
                        await trio.sleep_forever()
                    await inner.aclose()  # says goodbye within TLS, as a server does
                    nursery.cancel_scope.cancel()

    async def _encrypted(self, client: trio.SocketStream, server: trio.SocketStream) -> trio.abc.Stream:
        """Return *client*, or what it says within TLS if the proxy speaks that for the server."""
        if self._tls is None:
            return client
        request = await client.receive_some(len(SSL_REQUEST))
        if request != SSL_REQUEST:  # a cancel request of a libpq older than 17 is not encrypted
            await server.send_all(request)
            return client
        await client.send_all(b"S")
        return trio.SSLStream(client, self._tls, server_side=True)

    async def _upstream_from(self, client: trio.abc.Stream, server: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for chunk in client:
                await server.send_all(chunk)
            await server.send_eof()

    async def _downstream_to(self, client: trio.abc.Stream, server: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for chunk in server:
                if self.silent:
                    await trio.sleep_forever()
                await client.send_all(chunk)


@asynccontextmanager
async def open_proxy(upstream: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    """Give a proxy in front of the server at *upstream*, which speaks TLS for it if it is told how."""
    proxy = Proxy(upstream, tls)
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.run)
        yield proxy
        nursery.cancel_scope.cancel()
