"""A connection to one server, made when it is needed and again when it is lost."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar, cast

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.metadata import Deadline, encode_metadata, encode_timeout

from promptpipe import __version__
from promptpipe.client.call import ClientCall
from promptpipe.rpc.framing import Message
from promptpipe.rpc.http2 import ConnectionLostError, Http2Connection, Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

    from grpclib.client import Channel as StubChannel
    from grpclib.const import Cardinality

    from promptpipe.rpc.http2 import Headers, Http2Stream

    Metadata = Mapping[str, str | bytes] | Collection[tuple[str, str | bytes]]

MAX_MESSAGE = 4 * 1024 * 1024
"""Bytes of an answer, as with other gRPC clients."""
LIMITS = Limits(stream_window=MAX_MESSAGE + 65536, connection_window=4 * MAX_MESSAGE)
CONNECT_SECONDS = 10.0
ATTEMPTS = 3
"""Connections that a call may find closing before anything of it was sent."""

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)


@asynccontextmanager
async def open_channel(
    target: str, *, token: str | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[StubChannel]:
    """Give a channel to the server at *target* (`HOST:PORT`), whose calls carry *token*, for generated stubs.

    With *tls* (see `client_tls`) the server has to prove who it is. Nothing is connected before the first call.
    """
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield cast("StubChannel", Channel(nursery, target, token, tls))
        except Exception as error:  # noqa: BLE001  raised below: the caller's own error, in no group of the nursery's
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def client_tls(ca_file: str | None = None, cert_file: str | None = None, key_file: str | None = None) -> ssl.SSLContext:
    """Return a client's TLS context: servers are trusted by *ca_file*, else by the system's authorities.

    *cert_file* and *key_file* are for servers that ask who their clients are. Raise `OSError` for unusable files.
    """
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    if cert_file is not None:
        context.load_cert_chain(cert_file, key_file)
    return context


class Channel:
    """What generated stubs make calls on (grpclib's `Channel`, as far as they use it)."""

    def __init__(self, nursery: trio.Nursery, target: str, token: str | None, tls: ssl.SSLContext | None) -> None:
        self._nursery = nursery
        self._target = target
        self._token = token
        self._tls = tls
        self._connection: Http2Connection | None = None
        self._connecting = trio.Lock()

    def request(
        self,
        name: str,
        cardinality: Cardinality,
        request_type: type[Request],
        reply_type: type[Reply],
        *,
        timeout: float | None = None,
        deadline: Deadline | None = None,
        metadata: Metadata | None = None,
    ) -> ClientCall[Request, Reply]:
        """Return a call of the method with path *name*, to be entered; *timeout* in seconds."""
        del request_type
        if timeout is not None:
            deadline = Deadline.from_timeout(timeout)

        async def begin() -> Http2Stream:
            return await self._open_stream(self._headers(name, deadline, metadata))

        return ClientCall(begin, cardinality, reply_type, deadline, MAX_MESSAGE)

    def _headers(self, path: str, deadline: Deadline | None, metadata: Metadata | None) -> Headers:
        headers = [
            (":method", "POST"),
            (":scheme", "http" if self._tls is None else "https"),
            (":path", path),
            (":authority", self._target),
            ("te", "trailers"),
            ("content-type", "application/grpc+proto"),
            ("user-agent", f"promptpipe/{__version__}"),
        ]
        if deadline is not None:
            headers.append(("grpc-timeout", encode_timeout(deadline.time_remaining())))
        if self._token is not None:
            headers.append(("authorization", f"Bearer {self._token}"))
        return [*headers, *encode_metadata(metadata or ())]

    async def _open_stream(self, headers: Headers) -> Http2Stream:
        for _ in range(ATTEMPTS):
            connection = await self._connected()
            try:
                return await connection.open_stream(headers)
            except ConnectionLostError:
                # It was closing. Nothing has been sent on it, so a new one may carry the call.
                continue
        raise GRPCError(Status.UNAVAILABLE, f"{self._target} closes its connections")

    async def _connected(self) -> Http2Connection:
        async with self._connecting:
            if self._connection is None or self._connection.lost is not None:
                self._connection = await self._connect()
            return self._connection

    async def _connect(self) -> Http2Connection:
        try:
            with trio.fail_after(CONNECT_SECONDS):
                connection = Http2Connection(await self._open_transport(), LIMITS)
                await self._nursery.start(connection.run)
                try:
                    await connection.settled.wait()
                except trio.Cancelled:
                    connection.close()
                    raise
        except (OSError, ValueError, trio.TooSlowError, trio.BrokenResourceError) as error:
            raise GRPCError(Status.UNAVAILABLE, f"cannot connect to {self._target}: {_reason(error)}") from error
        if connection.lost is not None:
            raise GRPCError(Status.UNAVAILABLE, f"{self._target} closed the connection at once")
        return connection

    async def _open_transport(self) -> trio.abc.Stream:
        host, _, port = self._target.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        tcp = await trio.open_tcp_stream(host, int(port))
        if self._tls is None:
            return tcp
        secured = trio.SSLStream(tcp, self._tls, server_hostname=host, https_compatible=True)
        try:
            await secured.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(tcp)
            raise
        return secured


def _reason(error: BaseException) -> str:
    """Return why connecting failed, in a few words. Trio wraps what each address said."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        return _reason(cause.exceptions[0])
    if cause is not None:
        return _reason(cause)
    if isinstance(error, trio.TooSlowError):
        return f"no answer within {CONNECT_SECONDS:.0f} s"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
