"""The server among hostile peers: a bad byte ends one connection, and nothing else."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import hpack
import pytest
import trio
from google.protobuf.wrappers_pb2 import StringValue
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
)

from promptpipe.rpc.http2 import Limits
from promptpipe.rpc.http2.connection import MAX_HEADER_TABLE
from promptpipe.rpc.server import ServerLimits
from tests.support.eventually import eventually
from tests.support.http2 import PREFACE, data, goaway, message, open_peer, ping, reset, settings, window
from tests.support.rpc import Methods, open_client, open_server, path, works

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


ECHO = StringValue(value="hello").SerializeToString()
GREETING = PREFACE + settings()


def head(stream: int, *more: tuple[str | bytes, str | bytes], flags: tuple[str, ...] = ("END_HEADERS",)) -> bytes:
    """Return the HEADERS of a call, of no other state than its own."""
    usual = [(":method", "POST"), (":path", path("join")), (":scheme", "http"), ("content-type", "application/grpc")]
    return HeadersFrame(stream, hpack.Encoder().encode([*usual, *more]), flags=flags).serialize()


def raw(kind: int, payload: bytes, *, stream: int = 0, flags: int = 0, length: int | None = None) -> bytes:
    """Return a frame of any kind, of any content, of any length."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


DEADLY = {
    "garbage": bytes(range(256)) * 40,
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS hello": bytes.fromhex("16030100c8010000c40303") + bytes(300),
    "half a preface, then garbage": PREFACE[:10] + b"XXXXXXXXXXXXXXXXXXXX",
    "frames before settings": PREFACE + head(1) + b"\xff" * 100,
    "huge frame": GREETING + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(1000),
    "DATA on no stream": GREETING + raw(0, b"x"),
    "DATA on an idle stream": GREETING + data(1, b"x"),
    "even stream": GREETING + head(2),
    "stream id reused": GREETING + head(3, flags=("END_HEADERS", "END_STREAM")) + head(1),
    "HEADERS without END_STREAM after HEADERS": GREETING + head(1) + head(1),
    "window update of nothing": GREETING + raw(8, bytes(4)),
    "window update of nothing on a stream": GREETING + head(1) + raw(8, bytes(4), stream=1),
    "window overflow": GREETING + window(0, 2**31 - 1) + window(0, 2**31 - 1),
    "window of a setting too large": GREETING
    + settings(INITIAL_WINDOW_SIZE=2**31 - 1)
    + raw(4, b"\0\4\xff\xff\xff\xff"),
    "frame size too small": GREETING + raw(4, b"\0\5\0\0\0\1"),
    "settings of odd length": GREETING + raw(4, b"12345"),
    "settings on a stream": GREETING + raw(4, b"", stream=1),
    "ping of odd length": GREETING + raw(6, b"1234567"),
    "reset of an odd length": GREETING + head(1) + raw(3, b"12", stream=1),
    "padding longer than the frame": GREETING + head(1) + raw(0, b"\xff\x00", stream=1, flags=8),
    "push by a client": GREETING + head(1) + PushPromiseFrame(1, 2, b"\x82", flags=["END_HEADERS"]).serialize(),
    "stream that depends on itself": GREETING + PriorityFrame(1, depends_on=1).serialize(),
    "header block that is none": GREETING + HeadersFrame(1, b"\xff" * 50, flags=["END_HEADERS"]).serialize(),
    "header name not ascii": GREETING + head(1, ("naïve".encode(), b"x")),
    "oversize header list": GREETING + head(1, ("x", "y" * 15_000), ("z", "y" * 2000)),
    "header bomb": GREETING
    + HeadersFrame(1, hpack.Encoder().encode([("x", "y" * 3000)] * 2000), flags=["END_HEADERS"]).serialize(),
    "CONTINUATION flood": GREETING
    + HeadersFrame(1, b"\x82").serialize()
    + ContinuationFrame(1, b"").serialize() * 20_000,
    "CONTINUATION of nothing": GREETING + ContinuationFrame(1, b"\x82", flags=["END_HEADERS"]).serialize(),
    "frame within a header block": GREETING + HeadersFrame(1, b"\x82").serialize() + ping(),
    "flow control ignored": GREETING
    + head(1, (":path", path("hang")))
    + data(1, message())
    + data(1, bytes(16_384)) * 200,
    "PRIORITY flood": GREETING + PriorityFrame(1, depends_on=3).serialize() * 5000,
    "PING flood": GREETING + ping() * 5000,
    "SETTINGS flood": GREETING + settings() * 5000,
    "unknown frame flood": GREETING + raw(0xFE, b"") * 5000,
    "empty DATA flood": GREETING + head(1) + data(1) * 5000,
    "rapid reset": GREETING + b"".join(head(n) + reset(n) for n in range(1, 6001, 2)),
    "more streams than allowed": GREETING + b"".join(head(n) for n in range(1, 2401, 2)),
}
HARMLESS = {
    "nothing": b"",
    "half a preface": PREFACE[:7],
    "unknown frame": GREETING + raw(0xFE, b"x" * 100) + raw(0x10, b"", stream=77),
    "header value not ascii": GREETING + head(1, ("x", "é".encode()), ("y", b"\xff\xfe")),
    "half a message": GREETING + head(1) + data(1, message(size=1000) + bytes(500)),
    "window overflow on a stream": GREETING + head(1) + window(1, 2**31 - 1),
    "reset of a stream that is gone": GREETING + head(1) + reset(1) * 2,
    "DATA after a reset": GREETING + head(1) + reset(1) + data(1, bytes(1000)) * 10,
    "HEADERS after END_STREAM": GREETING + head(1, flags=("END_HEADERS", "END_STREAM")) + head(1),
    "trailers": GREETING + head(1) + head(1, flags=("END_HEADERS", "END_STREAM")),
    "goaway before the answer": GREETING + head(1) + goaway() + data(1, message(ECHO), "END_STREAM"),
    "priority": GREETING + PriorityFrame(1, depends_on=3).serialize(),
    "acknowledgement that nobody asked for": GREETING + raw(4, b"", flags=1) * 3,
    "pong that nobody asked for": GREETING + raw(6, b"12345678", flags=1),
}


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with open_server(Methods(), limits=ServerLimits(connections=20, each=Limits(last_words=0.1))) as (_, port):
        yield port


@pytest.mark.parametrize("name", DEADLY)
async def test_bad_byte_ends_its_connection_only(port: int, name: str) -> None:
    """It is closed, after the reason if the peer can understand one; an honest peer notices nothing."""
    async with open_client(port) as honest:
        assert (await honest.unary("echo", StringValue(value="before"))).value
        async with open_peer(port) as peer:
            await peer.send(DEADLY[name])
            frames = await peer.wait_closed()
        if DEADLY[name].startswith(GREETING):
            [end] = [frame for frame in frames if isinstance(frame, GoAwayFrame)]
            assert end.error_code != 0
        assert (await honest.unary("echo", StringValue(value="after"))).value
    assert await works(port)


@pytest.mark.parametrize("name", HARMLESS)
async def test_odd_byte_harms_nobody(port: int, name: str) -> None:
    """What HTTP/2 allows, or forgives, does not end the connection."""
    async with open_peer(port) as peer:
        await peer.send(HARMLESS[name])
        assert await works(port)
        if HARMLESS[name].startswith(GREETING):
            if "goaway" in name:
                assert (await peer.answer(1))["grpc-status"] == "0"
            else:
                await peer.call(101, "echo", ECHO)
                assert (await peer.answer(101))["grpc-status"] == "0"


async def test_attacks_at_once_do_not_stop_the_server(port: int) -> None:
    """All of them, together, half of them by peers that do not read."""

    async def attack(bytes_: bytes, *, read: bool) -> None:
        async with open_peer(port) as peer:
            try:
                await peer.send(bytes_)
            except trio.BrokenResourceError:
                return
            if read:
                with trio.move_on_after(0.5):
                    await peer.wait_closed()

    async with trio.open_nursery() as nursery:
        for number, bytes_ in enumerate([*DEADLY.values(), *HARMLESS.values()]):
            nursery.start_soon(partial(attack, bytes_, read=bool(number % 2)))
    assert await works(port)


async def test_peer_is_told_what_it_did(port: int) -> None:
    """By the error code of the GOAWAY."""
    async with open_peer(port) as peer:
        await peer.send(DEADLY["PING flood"])
        assert (await peer.wait_for(GoAwayFrame)).error_code == 0xB  # ENHANCE_YOUR_CALM
    async with open_peer(port) as peer:
        await peer.send(DEADLY["header name not ascii"])
        assert (await peer.wait_for(GoAwayFrame)).error_code == 0x1  # PROTOCOL_ERROR


@pytest.mark.slow
async def test_pings_of_a_client_that_is_sent_much_are_no_flood(port: int) -> None:
    """Some clients measure by pings how much they may be sent: up to one for each message that they get."""
    async with open_peer(port) as peer:
        await peer.greet()
        await peer.call(1, "endless", StringValue(value="x" * 1000).SerializeToString())
        for number in range(4000):
            await peer.wait_for(DataFrame)
            await peer.send(ping())
            if number % 16 == 0:
                await peer.send(window(0, 16_200), window(1, 16_200))
        await peer.send(window(0, 1_000_000))
        await peer.call(3, "echo", ECHO)
        assert (await peer.answer(3))["grpc-status"] == "0"


@pytest.mark.slow
async def test_10000_aborted_uploads_leave_the_connection_whole() -> None:
    """Not a byte of its window leaks: not by resets, not by answers given early, not by messages left half."""
    limits = ServerLimits(each=Limits(frame_burst=100_000))
    spoiled = message(ECHO) + message(size=2000) + bytes(300)
    async with open_server(Methods(), limits=limits) as (server, port), open_peer(port) as peer:
        await peer.greet()
        for batch in range(200):
            frames = []
            for number in range(50 * batch, 50 * batch + 50):
                stream = 2 * number + 1
                name = ("join", "refuse_upload", "missing", "measure")[number % 4]
                rest = DataFrame(stream, bytes(100), pad_length=200, flags=["PADDED"]).serialize()
                end = data(stream, b"", "END_STREAM") if number % 3 else reset(stream)
                frames += [peer.request(stream, name), data(stream, spoiled), rest, end]
            await peer.send(*frames, ping())
            await peer.wait_for(PingFrame)
        await peer.call(20_001, "echo", ECHO)
        assert (await peer.answer(20_001))["grpc-status"] == "0"
        [connection] = server._connections
        await eventually(lambda: not connection.streams)
        inbound = connection.h2._inbound_flow_control_window_manager
        assert inbound.current_window_size + inbound._bytes_processed == connection.limits.connection_window


async def test_peer_decides_not_how_much_is_remembered_for_it() -> None:
    """It may offer to remember any number of headers; what it is sent is encoded against a small table only."""
    async with open_server(Methods()) as (server, port), open_peer(port) as peer:
        peer.decoder.max_allowed_table_size = 2**30
        await peer.greet(HEADER_TABLE_SIZE=2**30)
        for number in range(100):
            name = StringValue(value=f"{number}" * 100)
            await peer.call(2 * number + 1, "refuse", name.SerializeToString())
            assert (await peer.answer(2 * number + 1))["grpc-status"] == "5"
        [connection] = server._connections
        assert connection.h2.encoder.header_table._current_size <= MAX_HEADER_TABLE


async def test_connections_are_bounded(port: int) -> None:
    """One more than the bound is closed unanswered; when others go, there is room again."""
    crowd = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(20)]
    async with open_peer(port) as peer:
        assert await peer.wait_closed() == []
    for stream in crowd:
        await stream.aclose()
    await eventually(lambda: works(port))


async def test_calls_are_bounded() -> None:
    """Over all connections; one more is refused as UNAVAILABLE; when others end, there is room again."""
    methods = Methods()
    async with (
        open_server(methods, limits=ServerLimits(calls=20)) as (_, port),
        open_peer(port) as one,
        open_peer(port) as two,
    ):
        for peer in (one, two):
            await peer.greet()
            for number in range(10):
                await peer.call(2 * number + 1, "wait", ECHO)
        await eventually(lambda: len(methods.begun) == 20)
        await one.call(101, "echo", ECHO)
        assert (await one.answer(101))["grpc-status"] == "14"
        methods.go_on.set()
        await two.answer(19)
        await eventually(lambda: len(methods.ended) == 20)
        assert await works(port)
