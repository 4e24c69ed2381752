"""A call as its handler sees it: the handler-facing side of grpclib's `server.Stream`, on Trio.

Generated code (`__mapping__` bases) and grpclib's reflection service are written against that interface.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import trio
from grpclib.const import Status
from grpclib.encoding.proto import ProtoStatusDetailsCodec
from grpclib.exceptions import GRPCError
from grpclib.metadata import encode_bin_value, encode_grpc_message

from promptpipe.rpc.framing import Message, framed, receive_message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpclib.const import Handler
    from grpclib.metadata import Deadline
    from multidict import MultiDict

    from promptpipe.rpc.http2 import Http2Stream

CONTENT_TYPE = "application/grpc+proto"
MAX_STATUS_TEXT = 256
"""Characters of a status message. Clients take about 8 KiB of trailers in all, and one character may become twelve."""
MAX_DETAILS = 4096
"""Bytes of a status's details, encoded; larger ones are left out."""

_DETAILS = ProtoStatusDetailsCodec()

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)


class RpcStream(Generic[Request, Reply]):
    """One call. Its messages come and go here; how it ends is said by `finish`, once."""

    def __init__(
        self,
        stream: Http2Stream,
        method: Handler,
        *,
        metadata: MultiDict[str | bytes],
        deadline: Deadline | None,
        max_message: int,
        patience: float,
    ) -> None:
        self.metadata = metadata
        self.deadline = deadline
        self._stream = stream
        self._kind = method.request_type
        self._cardinality = method.cardinality
        self._max_message = max_message
        self._patience = patience
        self._received = False
        self._replied = False
        self._begun = False

    async def recv_message(self) -> Request | None:
        """Return the next request; None when there are no more.

        A unary request is never None: one that does not come is an error of the client's, and so is one that takes
        its time.
        """
        if self._cardinality.client_streaming:
            return await self._receive()
        if self._stream.input_ended:
            message = await self._receive()  # it is there already, as it mostly is
        else:
            with trio.move_on_after(self._patience) as patience:
                message = await self._receive()
            if patience.cancelled_caught:
                raise GRPCError(Status.DEADLINE_EXCEEDED, "the request did not come in time")
        if message is None and not self._received:
            raise GRPCError(Status.INVALID_ARGUMENT, "the request has no message")
        self._received = True
        return message

    async def _receive(self) -> Request | None:
        return await receive_message(self._stream, self._kind, self._max_message)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Request:
        message = await self.recv_message()
        if message is None:
            raise StopAsyncIteration
        return message

    async def send_message(self, message: Reply) -> None:
        """Send a reply."""
        self._begin()
        self._replied = True
        await self._stream.send(framed(message))

    def finish(self, status: Status = Status.OK, text: str | None = None, details: Sequence[Any] = ()) -> None:
        """End the call, once its handler has ended."""
        if status is Status.OK and not self._replied and not self._cardinality.server_streaming:
            status, text = Status.INTERNAL, "the call has no reply"
        if status is Status.OK and self._stream.cut_short:
            status, text = Status.INTERNAL, "a reply was cut short"
        trailers = [] if self._begun else [(":status", "200"), ("content-type", CONTENT_TYPE)]
        trailers.append(("grpc-status", str(status.value)))
        if text:
            text = text[:MAX_STATUS_TEXT]
            trailers.append(("grpc-message", encode_grpc_message(text)))
        if details:
            encoded = encode_bin_value(_DETAILS.encode(status, text, details))
            if len(encoded) <= MAX_DETAILS:
                trailers.append(("grpc-status-details-bin", encoded.decode("ascii")))
        self._stream.send_headers(trailers, end=True)

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._stream.send_headers([(":status", "200"), ("content-type", CONTENT_TYPE)])


def refuse(stream: Http2Stream, http_status: int, status: Status | None = None, text: str = "") -> None:
    """Answer a request that is no call of ours."""
    headers = [(":status", str(http_status)), ("content-type", CONTENT_TYPE)]
    if status is not None:
        headers += [("grpc-status", str(status.value)), ("grpc-message", encode_grpc_message(text))]
    stream.send_headers(headers, end=True)
