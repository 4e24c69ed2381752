"""Messages on a stream: five bytes that tell how long, and then the message, as "gRPC over HTTP2" says.

Both ends of a connection speak it; compression is not offered, and refused.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from grpclib.const import Status
from grpclib.exceptions import GRPCError

if TYPE_CHECKING:
    from promptpipe.rpc.http2 import Http2Stream

PREFIX = struct.Struct(">BI")


class Message(Protocol):
    """What both betterproto2's messages and protobuf's can do."""

    def SerializeToString(self) -> bytes: ...  # noqa: D102, N802
    @classmethod
    def FromString(cls, s: bytes, /) -> Self: ...  # noqa: D102, N802


T = TypeVar("T", bound=Message)


def framed(message: Message) -> bytes:
    """Return a message as it travels."""
    body = message.SerializeToString()
    return PREFIX.pack(0, len(body)) + body


async def receive_message(
    stream: Http2Stream, kind: type[T], limit: int, *, unreadable: Status = Status.INVALID_ARGUMENT
) -> T | None:
    """Return the next message, or None at the end of the peer's side.

    Raise `GRPCError`: RESOURCE_EXHAUSTED for one of more than *limit* bytes, UNIMPLEMENTED for a compressed one,
    *unreadable* for one that cannot be read; and what `Http2Stream.receive` raises. When canceled, nothing is lost.
    """
    prefix = await stream.peek(PREFIX.size)
    if not prefix:
        return None
    if len(prefix) < PREFIX.size:
        raise GRPCError(Status.INTERNAL, "the stream ended within a message")
    compressed, size = PREFIX.unpack(prefix)
    if compressed:
        raise GRPCError(Status.UNIMPLEMENTED, "compressed messages are not taken")
    if size > limit:
        raise GRPCError(Status.RESOURCE_EXHAUSTED, f"a message of {size} bytes is too large; {limit} are taken")
    whole = await stream.receive(PREFIX.size + size)
    if len(whole) < PREFIX.size + size:
        raise GRPCError(Status.INTERNAL, "the stream ended within a message")
    try:
        return kind.FromString(whole[PREFIX.size :])
    except Exception as error:
        # The parser has no error of its own: whatever it stumbles over, the bytes are to blame.
        raise GRPCError(unreadable, f"the message is no valid {kind.__name__}") from error
