"""grpcio's server, in threads of its own: the second opinion on our client."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import trio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue
from google.rpc.error_details_pb2 import ResourceInfo
from google.rpc.status_pb2 import Status

from tests.support.rpc import SERVICE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@dataclass
class Servicer:
    """The methods of `tests.support.rpc.Methods` that a client is tested with."""

    canceled: threading.Event = field(default_factory=threading.Event)
    begun: list[str] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)

    def echo(self, request: StringValue, context: grpc.ServicerContext) -> StringValue:
        self.metadata.append(dict(context.invocation_metadata()))
        return request

    def big(self, request: Int64Value, context: grpc.ServicerContext) -> BytesValue:
        return BytesValue(value=bytes(request.value))

    def join(self, requests: Iterator[StringValue], context: grpc.ServicerContext) -> StringValue:
        return StringValue(value="".join(request.value for request in requests))

    def count(self, request: Int64Value, context: grpc.ServicerContext) -> Iterator[Int64Value]:
        for number in range(request.value):
            yield Int64Value(value=number)

    def chat(self, requests: Iterator[StringValue], context: grpc.ServicerContext) -> Iterator[StringValue]:
        yield from requests

    def hang(self, request: StringValue, context: grpc.ServicerContext) -> StringValue:
        self.begun.append("hang")
        context.add_callback(self.canceled.set)
        self.canceled.wait(20)
        return request

    def wait(self, request: StringValue, context: grpc.ServicerContext) -> StringValue:
        self.begun.append("wait")
        self.go_on.wait(20)
        return request

    def endless(self, request: StringValue, context: grpc.ServicerContext) -> Iterator[StringValue]:
        context.add_callback(self.canceled.set)
        while context.is_active():
            yield request

    def refuse(self, request: StringValue, context: grpc.ServicerContext) -> StringValue:
        detail = AnyMessage()
        detail.Pack(ResourceInfo(resource_type="job", resource_name="ä"))
        status = Status(code=5, message=request.value, details=[detail])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.NOT_FOUND, request.value)

    def refuse_upload(self, requests: Iterator[BytesValue], context: grpc.ServicerContext) -> StringValue:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now")

    def crash_late(self, request: StringValue, context: grpc.ServicerContext) -> Iterator[StringValue]:
        yield request
        context.abort(grpc.StatusCode.ABORTED, "late")

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return them as grpcio wants them."""
        kinds: dict[str, tuple[Any, Any]] = {
            "echo": (grpc.unary_unary_rpc_method_handler, StringValue),
            "big": (grpc.unary_unary_rpc_method_handler, Int64Value),
            "join": (grpc.stream_unary_rpc_method_handler, StringValue),
            "count": (grpc.unary_stream_rpc_method_handler, Int64Value),
            "chat": (grpc.stream_stream_rpc_method_handler, StringValue),
            "hang": (grpc.unary_unary_rpc_method_handler, StringValue),
            "wait": (grpc.unary_unary_rpc_method_handler, StringValue),
            "endless": (grpc.unary_stream_rpc_method_handler, StringValue),
            "refuse": (grpc.unary_unary_rpc_method_handler, StringValue),
            "refuse_upload": (grpc.stream_unary_rpc_method_handler, BytesValue),
            "crash_late": (grpc.unary_stream_rpc_method_handler, StringValue),
        }
        methods = {
            name: make(getattr(self, name), kind.FromString, lambda reply: reply.SerializeToString())
            for name, (make, kind) in kinds.items()
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)


@dataclass
class Peer:
    """A grpcio server that runs."""

    servicer: Servicer
    server: grpc.Server
    port: int

    async def stop(self, grace: float | None) -> None:
        """Stop it, and wait until it has."""
        stopped = self.server.stop(grace)
        await trio.to_thread.run_sync(stopped.wait)


@asynccontextmanager
async def open_grpcio_server(
    *, port: int = 0, credentials: grpc.ServerCredentials | None = None, **options: int
) -> AsyncIterator[Peer]:
    """Give grpcio's server on this machine."""
    servicer = Servicer()
    with ThreadPoolExecutor(8) as threads:
        settings = [("grpc.so_reuseport", 0), *((f"grpc.{name}", value) for name, value in options.items())]
        server = grpc.server(threads, [servicer.handlers()], options=settings)
        address = f"localhost:{port}"
        bound = (
            server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
        )
        server.start()
        try:
            yield Peer(servicer, server, bound)
        finally:
            servicer.canceled.set()
            servicer.go_on.set()
            with trio.CancelScope(shield=True):
                stopped = server.stop(None)
                await trio.to_thread.run_sync(stopped.wait)
