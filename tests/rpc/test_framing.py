"""Messages on a stream, whatever way it is cut into frames."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import trio
from google.protobuf.wrappers_pb2 import BytesValue
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from hypothesis import given, settings
from hypothesis import strategies as st

from promptpipe.rpc.framing import receive_message
from promptpipe.rpc.http2.stream import Http2Stream, StreamResetError
from tests.support.http2 import message

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT = 3000
bodies = st.lists(st.binary(max_size=600), max_size=8)


class Window:
    """A connection's side of a stream, as far as reading needs it: it counts what is given back."""

    def __init__(self) -> None:
        self.given_back = 0

    def acknowledge(self, stream_id: int, size: int) -> None:
        assert size > 0
        self.given_back += size


def read(frames: Sequence[bytes], *, feed_first: bool) -> tuple[list[bytes], int]:
    """Return the messages that *frames* carry, and how many bytes were given back to the sender."""
    window = Window()
    stream = Http2Stream(window, 1)  # type: ignore[arg-type]
    values: list[bytes] = []

    async def feed() -> None:
        for frame in frames:
            stream.feed(frame)
            await trio.lowlevel.checkpoint()
        stream.end_input()

    async def take() -> None:
        while (value := await receive_message(stream, BytesValue, LIMIT)) is not None:
            values.append(value.value)

    async def main() -> None:
        if feed_first:
            await feed()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            if not feed_first:
                nursery.start_soon(feed)

    trio.run(main)
    return values, window.given_back


@settings(deadline=None)
@given(values=bodies, cuts=st.lists(st.integers(0, 6000), max_size=40), feed_first=st.booleans())
def test_any_cut_gives_the_same_messages(values: list[bytes], cuts: list[int], feed_first: bool) -> None:
    """And every byte of them is given back to the sender, once."""
    wire = b"".join(message(BytesValue(value=value).SerializeToString()) for value in values)
    borders = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    frames = [wire[start:end] for start, end in pairwise(borders)]
    assert read(frames, feed_first=feed_first) == (values, len(wire))


@pytest.mark.parametrize("feed_first", [True, False])
def test_stream_of_single_bytes_gives_the_same_messages(feed_first: bool) -> None:
    values = [b"", b"a", b"bc" * 100]
    wire = b"".join(message(BytesValue(value=value).SerializeToString()) for value in values)
    assert read([bytes([byte]) for byte in wire], feed_first=feed_first) == (values, len(wire))


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (message(size=LIMIT + 1), Status.RESOURCE_EXHAUSTED),
        (message(size=2**32 - 1), Status.RESOURCE_EXHAUSTED),
        (message(b"x", compressed=1), Status.UNIMPLEMENTED),
        (message(b"x", compressed=255), Status.UNIMPLEMENTED),
        (message(b"\xff"), Status.INVALID_ARGUMENT),
        (message(b"\x0a\x01x")[:-1], Status.INTERNAL),
        (b"\x00\x00", Status.INTERNAL),
    ],
)
async def test_what_is_no_message_is_an_error(autojump_clock: object, wire: bytes, status: Status) -> None:
    stream = Http2Stream(Window(), 1)  # type: ignore[arg-type]
    stream.feed(wire)
    stream.end_input()
    with pytest.raises(GRPCError) as raised:
        await receive_message(stream, BytesValue, LIMIT)
    assert raised.value.status is status


async def test_reset_fails_whoever_reads(autojump_clock: object) -> None:
    """But what had come before, whole, is still read."""
    stream = Http2Stream(Window(), 1)  # type: ignore[arg-type]
    stream.feed(message(b"") + message(b"")[:2])
    stream.fail(StreamResetError(8))
    assert await receive_message(stream, BytesValue, LIMIT) == BytesValue()
    with pytest.raises(StreamResetError):
        await receive_message(stream, BytesValue, LIMIT)
