"""Asking a server by our client; and servers that say to it whatever a test wants."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError

from promptpipe.client import open_channel
from tests.support.http2 import RawPeer, data, message
from tests.support.rpc import path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

HELLO = StringValue(value="hello")
OK = [(":status", "200"), ("content-type", "application/grpc")]
KINDS = {
    "echo": (Cardinality.UNARY_UNARY, StringValue, StringValue),
    "hang": (Cardinality.UNARY_UNARY, StringValue, StringValue),
    "wait": (Cardinality.UNARY_UNARY, StringValue, StringValue),
    "refuse": (Cardinality.UNARY_UNARY, StringValue, StringValue),
    "missing": (Cardinality.UNARY_UNARY, StringValue, StringValue),
    "big": (Cardinality.UNARY_UNARY, Int64Value, BytesValue),
    "join": (Cardinality.STREAM_UNARY, StringValue, StringValue),
    "refuse_upload": (Cardinality.STREAM_UNARY, BytesValue, StringValue),
    "count": (Cardinality.UNARY_STREAM, Int64Value, Int64Value),
    "crash_late": (Cardinality.UNARY_STREAM, StringValue, StringValue),
    "endless": (Cardinality.UNARY_STREAM, StringValue, StringValue),
    "chat": (Cardinality.STREAM_STREAM, StringValue, StringValue),
}


def call(channel: Any, name: str, **options: Any) -> Any:
    return channel.request(path(name), *KINDS[name], **options)


async def ask(channel: Any, name: str, request: Any, **options: Any) -> Any:
    """Return the answer to one request."""
    async with call(channel, name, **options) as stream:
        await stream.send_message(request, end=True)
        return await stream.recv_message()


async def refused(awaitable: Any) -> GRPCError:
    with pytest.raises(GRPCError) as raised:
        await awaitable
    return raised.value


@asynccontextmanager
async def open_raw_server(serve: Callable[[RawPeer], Awaitable[None]]) -> AsyncIterator[Any]:
    """Give a channel to a server that says to each connection whatever *serve* does."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await serve(RawPeer(stream))

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        async with open_channel(f"127.0.0.1:{listener.socket.getsockname()[1]}") as channel:
            yield channel
        nursery.cancel_scope.cancel()


def answer(peer: RawPeer, stream: int) -> list[bytes]:
    body = message(HELLO.SerializeToString())
    return [peer.head(stream, OK), data(stream, body), peer.head(stream, [("grpc-status", "0")], "END_STREAM")]
