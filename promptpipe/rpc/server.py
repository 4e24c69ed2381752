"""The gRPC server as a part of the service: bound early, drained with the others."""

from __future__ import annotations

import ssl
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from promptpipe.rpc.auth import everyone
from promptpipe.rpc.calls import Call
from promptpipe.rpc.http2 import Http2Connection, Limits

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
    from typing import Any, Protocol

    from grpclib.const import Handler

    from promptpipe.rpc.auth import Authenticate
    from promptpipe.rpc.http2 import Http2Stream
    from promptpipe.rpc.stream import RpcStream

    class Service(Protocol):
        """What generated code makes of a service: its methods, by path."""

        def __mapping__(self) -> Mapping[str, Handler]: ...


STREAM_GRACE = 1.0
"""How long streaming calls may go on once draining: they have no end of their own."""
FAREWELL_SECONDS = 0.5
"""How long peers have to learn that the server goes, and to take their last answers."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What peers may do together, and each on its connection. Times in seconds."""

    connections: int = 200
    """At a time; one more is closed unanswered."""
    calls: int = 1000
    """At a time, over all connections; one more is refused."""
    handshake: float = 10.0
    """Until TLS is spoken."""
    each: Limits = field(default_factory=partial(Limits, idle=1800.0))


DEFAULT_LIMITS = ServerLimits()


class RpcServer:
    """Serves generated services on a listening socket."""

    name = "gRPC server"

    def __init__(
        self,
        services: Iterable[Service],
        listener: socket.socket,
        *,
        grace: float,
        authenticate: Authenticate = everyone,
        tls: ssl.SSLContext | None = None,
        limits: ServerLimits = DEFAULT_LIMITS,
    ) -> None:
        self._methods = _methods(services)
        self._listener = listener
        self._grace = grace
        self._authenticate = authenticate
        self._tls = tls
        self._limits = limits
        self._connections: set[Http2Connection] = set()
        self._calls: set[Call] = set()
        self._handshakes = 0
        self._stop = trio.Event()
        self._fewer_calls = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until stopped and the calls at hand are answered."""
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._listener))
        async with trio.open_nursery() as nursery:
            accepting = trio.CancelScope()

            async def accept() -> None:
                with accepting:
                    serve = partial(self._serve_peer, nursery)
                    await trio.serve_listeners(serve, [listener], handler_nursery=nursery)

            nursery.start_soon(accept)
            task_status.started()
            await self._stop.wait()
            accepting.cancel()
            await self._drain()
            nursery.cancel_scope.cancel()

    def stop(self) -> None:
        """Accept no more connections, and no more calls on those that are open."""
        self._stop.set()

    async def _drain(self) -> None:
        for connection in self._connections:
            connection.go_away()
        with trio.move_on_after(max(0.0, self._grace - FAREWELL_SECONDS)):
            with trio.move_on_after(STREAM_GRACE):
                await self._wait_calls(streaming=True)
            self._stop_calls(streaming=True)
            await self._wait_calls()
        self._stop_calls()
        for connection in self._connections:
            connection.go_away(final=True)
        with trio.move_on_after(FAREWELL_SECONDS):
            while self._connections:
                await self._wait_fewer()

    def _stop_calls(self, *, streaming: bool | None = None) -> None:
        for call in self._calls:
            if streaming is None or call.streaming is streaming:
                call.stop("the service is draining")

    async def _wait_calls(self, *, streaming: bool | None = None) -> None:
        while any(streaming is None or call.streaming is streaming for call in self._calls):
            await self._wait_fewer()

    async def _wait_fewer(self) -> None:
        self._fewer_calls = trio.Event()
        await self._fewer_calls.wait()

    async def _serve_peer(self, nursery: trio.Nursery, peer: trio.SocketStream) -> None:
        """Serve one connection; whatever goes wrong in it ends it alone."""
        if len(self._connections) + self._handshakes >= self._limits.connections:
            log.warning("connection refused", open=len(self._connections))
            await trio.aclose_forcefully(peer)
            return
        try:
            transport = await self._secured(peer)
            if transport is not None:
                await self._serve(nursery, transport)
        except* Exception:
            log.exception("connection failed")

    async def _secured(self, peer: trio.SocketStream) -> trio.abc.Stream | None:
        """Return the transport to speak HTTP/2 on; None for a peer that does not get that far."""
        if self._tls is None:
            return peer
        stream = trio.SSLStream(peer, self._tls, server_side=True, https_compatible=True)
        self._handshakes += 1
        try:
            with trio.move_on_after(self._limits.handshake):
                await stream.do_handshake()
                if stream.selected_alpn_protocol() == "h2":
                    return stream
        except (trio.BrokenResourceError, OSError) as error:
            log.info("TLS handshake failed", error=str(error.__cause__ or error)[:200])
        finally:
            self._handshakes -= 1
        await trio.aclose_forcefully(peer)
        return None

    async def _serve(self, nursery: trio.Nursery, transport: trio.abc.Stream) -> None:
        connection = Http2Connection(transport, self._limits.each, partial(self._begin_call, nursery))
        self._connections.add(connection)
        if self._stop.is_set():
            connection.go_away(final=True)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            self._fewer_calls.set()

    def _begin_call(self, nursery: trio.Nursery, stream: Http2Stream) -> None:
        call = Call(stream, self._methods, self._authenticate)
        if self._stop.is_set():
            call.stop("the service is draining")
        elif len(self._calls) >= self._limits.calls:
            call.stop("the service has too many calls to answer")
        self._calls.add(call)
        nursery.start_soon(self._run_call, call)

    async def _run_call(self, call: Call) -> None:
        try:
            await call.run()
        except Exception:
            log.exception("call failed outside its handler")
        finally:
            self._calls.discard(call)
            self._fewer_calls.set()


def _methods(services: Iterable[Service]) -> dict[str, Handler]:
    methods: dict[str, Handler] = {}
    for service in services:
        if hasattr(service, "_call_rpc_handler_server_stream"):
            service._call_rpc_handler_server_stream = _send_replies  # noqa: SLF001  betterproto2's leaves them open
        methods |= service.__mapping__()
    return methods


async def _send_replies(
    handler: Callable[[Any], AsyncGenerator[Any, None]], stream: RpcStream[Any, Any], request: Any
) -> None:
    """Send what *handler* yields; whichever way that ends, close what it holds open before the call is over."""
    async with aclosing(handler(request)) as replies:
        async for reply in replies:
            await stream.send_message(reply)


def tls_context(cert_file: str, key_file: str, client_ca_file: str | None = None) -> ssl.SSLContext:
    """Return a server's TLS context; with *client_ca_file*, clients need a certificate of that authority.

    Raise `OSError` (`ssl.SSLError` among it) when a file cannot be used.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(cert_file, key_file)
    if client_ca_file is not None:
        context.load_verify_locations(client_ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
