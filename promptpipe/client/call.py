"""One call, as generated stubs make it: grpclib's `client.Stream`, as far as they use it, on Trio."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, Self, TypeVar

import trio
from google.rpc import error_details_pb2 as _known_details  # noqa: F401  a status is decoded into types that are known
from grpclib.const import Cardinality, Status
from grpclib.encoding.proto import ProtoStatusDetailsCodec
from grpclib.exceptions import GRPCError
from grpclib.metadata import decode_bin_value, decode_grpc_message
from h2.errors import ErrorCodes

from promptpipe.rpc.framing import Message, framed, receive_message
from promptpipe.rpc.http2 import ConnectionLostError, StreamResetError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import TracebackType

    from grpclib.metadata import Deadline

    from promptpipe.rpc.http2 import Http2Stream

_RESETS = {
    ErrorCodes.CANCEL: Status.CANCELLED,
    ErrorCodes.REFUSED_STREAM: Status.UNAVAILABLE,
    ErrorCodes.ENHANCE_YOUR_CALM: Status.RESOURCE_EXHAUSTED,
    ErrorCodes.INADEQUATE_SECURITY: Status.PERMISSION_DENIED,
}
_HTTP_STATUSES = {
    "400": Status.INTERNAL,
    "401": Status.UNAUTHENTICATED,
    "403": Status.PERMISSION_DENIED,
    "404": Status.UNIMPLEMENTED,
    "429": Status.UNAVAILABLE,
    "502": Status.UNAVAILABLE,
    "503": Status.UNAVAILABLE,
    "504": Status.UNAVAILABLE,
}
"""What an answer that is not gRPC's means ("HTTP to gRPC Status Code Mapping" of the gRPC project)."""
_DETAILS = ProtoStatusDetailsCodec()

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)


class ClientCall(Generic[Request, Reply]):
    """One call. Leaving it ends it: in good order when the answer is complete, else the server is told to stop."""

    def __init__(
        self,
        begin: Callable[[], Awaitable[Http2Stream]],
        cardinality: Cardinality,
        reply_type: type[Reply],
        deadline: Deadline | None,
        max_message: int,
    ) -> None:
        self._begin = begin
        self._cardinality = cardinality
        self._reply_type = reply_type
        self._deadline = math.inf if deadline is None else trio.current_time() + deadline.time_remaining()
        self._max_message = max_message
        self._stream: Http2Stream | None = None
        self._replied = False
        self._ended = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is None:
            return
        try:
            if kind is None and not self._ended:
                await self._finish(self._stream)  # noqa: ASYNC102  the last step of a call that goes well
        finally:
            self._stream.release(ErrorCodes.CANCEL)

    async def send_request(self) -> None:
        """Begin the call; `send_message` does so by itself."""
        if self._stream is None:
            with self._errors_as_status():
                self._stream = await self._begin()

    async def send_message(self, message: Request, *, end: bool = False) -> None:
        """Send a request, the last one with *end*; raise `GRPCError` when the call has failed."""
        await self._send(framed(message), end=end)

    async def end(self) -> None:
        """Say that no more requests follow."""
        await self._send(b"", end=True)

    async def recv_message(self) -> Reply | None:
        """Return the next reply, or None after the last; raise `GRPCError` when the call has failed."""
        stream = self._begun()
        with self._errors_as_status():
            await self._wait_answer(stream)
            message = await receive_message(stream, self._reply_type, self._max_message, unreadable=Status.INTERNAL)
        if message is not None:
            self._replied = True
            return message
        self._end(stream)
        if not self._replied and not self._cardinality.server_streaming:
            raise GRPCError(Status.INTERNAL, "the answer has no message")
        return None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Reply:
        message = await self.recv_message()
        if message is None:
            raise StopAsyncIteration
        return message

    def _begun(self) -> Http2Stream:
        if self._stream is None:
            raise RuntimeError("the call has not begun")
        return self._stream

    async def _send(self, data: bytes, *, end: bool) -> None:
        await self.send_request()
        stream = self._begun()
        with self._errors_as_status():
            try:
                await stream.send(data, end=end)
            except StreamResetError:
                if not stream.input_ended:
                    raise
                # The server has answered already, and takes no more.
                self._end(stream)

    async def _wait_answer(self, stream: Http2Stream) -> None:
        """Wait until the answer begins; raise `GRPCError` when it is none of a gRPC server."""
        if not self._replied:
            values = dict(await stream.wait_headers())
            if "grpc-status" in values:
                self._ended = True
                _raise_status(values)
            _check(values)

    async def _finish(self, stream: Http2Stream) -> None:
        """Wait for the status; raise it when it is an error."""
        with self._errors_as_status():
            await self._wait_answer(stream)
            await stream.wait_ended()
        self._end(stream)

    def _end(self, stream: Http2Stream) -> None:
        """Note that the answer is complete; raise its status when it is an error."""
        self._ended = True
        values = dict(stream.trailers or stream.headers or ())
        if "grpc-status" not in values:
            raise GRPCError(Status.UNKNOWN, "the answer ended without a status")
        _raise_status(values)

    @contextmanager
    def _errors_as_status(self) -> Iterator[None]:
        try:
            with trio.fail_at(self._deadline):
                yield
        except trio.TooSlowError:
            raise GRPCError(Status.DEADLINE_EXCEEDED, "the deadline has passed") from None
        except StreamResetError as error:
            raise GRPCError(_reset_status(error.code), str(error)) from error
        except ConnectionLostError as error:
            raise GRPCError(Status.UNAVAILABLE, str(error)) from error


def _check(headers: dict[str, str]) -> None:
    """Raise `GRPCError` when an answer's headers are not those of a gRPC server."""
    http_status = headers.get(":status", "")
    if http_status != "200":
        raise GRPCError(_HTTP_STATUSES.get(http_status, Status.UNKNOWN), f"the server answered HTTP {http_status}")
    kind = headers.get("content-type", "")
    if not kind.startswith("application/grpc"):
        raise GRPCError(Status.UNKNOWN, f"the server answered with {kind[:100] or 'no content type'}, not with gRPC")


def _reset_status(code: int) -> Status:
    try:
        return _RESETS.get(ErrorCodes(code), Status.INTERNAL)
    except ValueError:
        return Status.INTERNAL


def _raise_status(values: dict[str, str]) -> None:
    """Raise the status in headers or trailers, unless it is OK."""
    code = values["grpc-status"]
    try:
        status = Status(int(code))
    except ValueError:
        status = Status.UNKNOWN
    if status is Status.OK:
        return
    text = decode_grpc_message(values.get("grpc-message", ""))
    details = None
    if "grpc-status-details-bin" in values:
        try:
            details = _DETAILS.decode(status, text, decode_bin_value(values["grpc-status-details-bin"].encode()))
        except Exception:  # noqa: BLE001  details are an extra; protobuf has no base class for what they can break
            details = None
    raise GRPCError(status, text, details)
