"""A gRPC service that shows what becomes of its calls, our server around it, and grpcio as the independent client."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import trio
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue
from google.rpc.error_details_pb2 import ResourceInfo
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from promptpipe.net import listen
from promptpipe.rpc.server import RpcServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

    Call = Any
    Method = Callable[[Call], Awaitable[None]]

SERVICE = "test.Service"
SECRET = "what nobody outside may know"
PATIENCE = 20.0
"""Seconds after which a call of a test's has failed."""


def path(name: str) -> str:
    """Return the path of a method."""
    return f"/{SERVICE}/{name}"


@dataclass
class Methods:
    """A method for each thing that can happen to a call, and which calls have begun, ended and been canceled."""

    begun: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    canceled: list[str] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)
    go_on: trio.Event = field(default_factory=trio.Event)

    def __mapping__(self) -> dict[str, Handler]:
        unary, client = Cardinality.UNARY_UNARY, Cardinality.STREAM_UNARY
        server, both = Cardinality.UNARY_STREAM, Cardinality.STREAM_STREAM
        kinds = [
            (self.echo, unary, StringValue, StringValue),
            (self.big, unary, Int64Value, BytesValue),
            (self.measure, unary, BytesValue, Int64Value),
            (self.join, client, StringValue, StringValue),
            (self.count, server, Int64Value, Int64Value),
            (self.chat, both, StringValue, StringValue),
            (self.hang, unary, StringValue, StringValue),
            (self.hang_up, both, StringValue, StringValue),
            (self.wait, unary, StringValue, StringValue),
            (self.endless, server, StringValue, StringValue),
            (self.refuse, unary, StringValue, StringValue),
            (self.refuse_upload, client, BytesValue, StringValue),
            (self.refuse_in_nursery, unary, StringValue, StringValue),
            (self.crash, unary, StringValue, StringValue),
            (self.crash_late, server, StringValue, StringValue),
            (self.silent, unary, StringValue, StringValue),
        ]
        return {path(kind[0].__name__): Handler(self._recorded(kind[0]), *kind[1:]) for kind in kinds}

    def _recorded(self, method: Method) -> Method:
        name = method.__name__

        async def recorded(call: Call) -> None:
            self.begun.append(name)
            self.metadata.append(dict(call.metadata))
            try:
                await method(call)
            except trio.Cancelled:
                self.canceled.append(name)
                raise
            finally:
                self.ended.append(name)

        return recorded

    async def echo(self, call: Call) -> None:
        request = await call.recv_message()
        await call.send_message(StringValue(value=request.value))

    async def big(self, call: Call) -> None:
        request = await call.recv_message()
        await call.send_message(BytesValue(value=bytes(request.value)))

    async def measure(self, call: Call) -> None:
        request = await call.recv_message()
        await call.send_message(Int64Value(value=len(request.value)))

    async def join(self, call: Call) -> None:
        await call.send_message(StringValue(value="".join([request.value async for request in call])))

    async def count(self, call: Call) -> None:
        request = await call.recv_message()
        for number in range(request.value):
            await call.send_message(Int64Value(value=number))

    async def chat(self, call: Call) -> None:
        async for request in call:
            await call.send_message(StringValue(value=request.value))

    async def hang(self, call: Call) -> None:
        await call.recv_message()
        await trio.sleep_forever()

    async def hang_up(self, call: Call) -> None:
        """Both ways at once, as handlers with a nursery do it."""

        async def listen_on() -> None:
            async for _ in call:
                pass
            await trio.sleep_forever()

        async def talk_on() -> None:
            while True:
                await call.send_message(StringValue(value="x" * 10_000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen_on)
            nursery.start_soon(talk_on)

    async def wait(self, call: Call) -> None:
        request = await call.recv_message()
        await self.go_on.wait()
        await call.send_message(StringValue(value=request.value))

    async def endless(self, call: Call) -> None:
        request = await call.recv_message()
        while True:
            await call.send_message(StringValue(value=request.value))

    async def refuse(self, call: Call) -> None:
        request = await call.recv_message()
        raise GRPCError(Status.NOT_FOUND, request.value, [ResourceInfo(resource_type="job", resource_name="ä")])

    async def refuse_upload(self, call: Call) -> None:
        raise GRPCError(Status.FAILED_PRECONDITION, "not now")

    async def refuse_in_nursery(self, call: Call) -> None:
        request = await call.recv_message()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise GRPCError(Status.ABORTED, request.value)

    async def crash(self, call: Call) -> None:
        raise RuntimeError(SECRET)

    async def crash_late(self, call: Call) -> None:
        await call.send_message(StringValue(value="one"))
        raise RuntimeError(SECRET)

    async def silent(self, call: Call) -> None:
        await call.recv_message()


class Service:
    """A service of one method, with as many requests and answers as it likes."""

    def __init__(self, method: Method, requests: type[Any] = StringValue, answers: type[Any] = StringValue) -> None:
        self._path = path(method.__name__)
        self._handler = Handler(method, Cardinality.STREAM_STREAM, requests, answers)

    def __mapping__(self) -> dict[str, Handler]:
        return {self._path: self._handler}


@asynccontextmanager
async def open_server(*services: Any, grace: float = 1.0, **options: Any) -> AsyncIterator[tuple[RpcServer, int]]:
    """Give a server of *services*, and its port."""
    with listen("127.0.0.1", 0, "test") as listener:
        server = RpcServer(services, listener, grace=grace, **options)
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            yield server, listener.getsockname()[1]
            nursery.cancel_scope.cancel()


class Client:
    """Grpcio's client, which waits in threads."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel

    async def unary(self, name: str, request: Any = None, kind: type[Any] = StringValue, **options: Any) -> Any:
        """Return the answer of a method with one request and one answer."""
        call = self.channel.unary_unary(_path(name), request_serializer=_bytes, response_deserializer=kind.FromString)
        request = StringValue() if request is None else request
        return await trio.to_thread.run_sync(partial(call, request, timeout=PATIENCE, **options))

    async def upload(self, name: str, requests: Iterable[Any], kind: type[Any] = StringValue) -> Any:
        """Return the answer to a stream of requests."""
        call = self.channel.stream_unary(_path(name), request_serializer=_bytes, response_deserializer=kind.FromString)
        return await trio.to_thread.run_sync(partial(call, iter(requests), timeout=PATIENCE))

    async def download(self, name: str, request: Any, kind: type[Any] = StringValue) -> list[Any]:
        """Return a stream of answers."""
        return await trio.to_thread.run_sync(lambda: list(self.begin_download(name, request, kind)))

    async def chat(self, name: str, requests: Iterable[Any], kind: type[Any] = StringValue) -> list[Any]:
        """Return the answers to a stream of requests."""
        call = self.channel.stream_stream(_path(name), request_serializer=_bytes, response_deserializer=kind.FromString)
        return await trio.to_thread.run_sync(lambda: list(call(iter(requests), timeout=PATIENCE)))

    def begin(self, name: str, request: Any = None) -> Any:
        """Begin a unary call and return its future, which can be canceled."""
        call = self.channel.unary_unary(_path(name), _bytes, StringValue.FromString)
        return call.future(StringValue() if request is None else request, timeout=PATIENCE)

    def begin_download(self, name: str, request: Any = None, kind: type[Any] = StringValue) -> Any:
        """Begin a stream of answers and return its iterator, which blocks, and can be canceled."""
        call = self.channel.unary_stream(_path(name), request_serializer=_bytes, response_deserializer=kind.FromString)
        return call(StringValue() if request is None else request, timeout=PATIENCE)


@asynccontextmanager
async def open_client(
    port: int, *, credentials: grpc.ChannelCredentials | None = None, options: Mapping[str, int] | None = None
) -> AsyncIterator[Client]:
    """Give grpcio's client of a server on this machine, with a connection of its own."""
    settings = [
        ("grpc.use_local_subchannel_pool", 1),
        *((f"grpc.{name}", value) for name, value in (options or {}).items()),
    ]
    target = f"localhost:{port}"
    if credentials is None:
        channel = grpc.insecure_channel(target, settings)
    else:
        channel = grpc.secure_channel(target, credentials, settings)
    try:
        yield Client(channel)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(channel.close)


async def works(port: int) -> bool:
    """Return whether an honest client's call on a connection of its own is answered."""
    async with open_client(port) as client:
        return bool((await client.unary("echo", StringValue(value="hello"))).value == "hello")


async def failure(call: Awaitable[object]) -> Any:
    """Return grpcio's error of a call that has to fail."""
    try:
        await call
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call has not failed")


def _path(name: str) -> str:
    return name if name.startswith("/") else path(name)


def _bytes(message: Any) -> bytes:
    serialized: bytes = message if isinstance(message, bytes) else message.SerializeToString()
    return serialized
