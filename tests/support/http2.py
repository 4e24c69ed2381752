"""A peer that speaks HTTP/2 frame by frame, and may say anything."""

from __future__ import annotations

import math
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import hpack
import trio
import trio.testing
from hyperframe.frame import (
    DataFrame,
    ExtensionFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from promptpipe.rpc.server import RpcServer
from tests.support.rpc import path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def settings(**values: int) -> bytes:
    """Return a SETTINGS frame; names as in `SettingsFrame`."""
    return SettingsFrame(0, {getattr(SettingsFrame, name): value for name, value in values.items()}).serialize()


def data(stream: int, body: bytes = b"", *flags: str) -> bytes:
    """Return a DATA frame."""
    return DataFrame(stream, body, flags=flags).serialize()


def reset(stream: int, code: int = 8) -> bytes:
    """Return a RST_STREAM frame."""
    return RstStreamFrame(stream, code).serialize()


def window(stream: int, size: int) -> bytes:
    """Return a WINDOW_UPDATE frame."""
    return WindowUpdateFrame(stream, size).serialize()


def ping(payload: bytes = b"somebody") -> bytes:
    """Return a PING frame."""
    return PingFrame(0, payload).serialize()


def goaway(last: int = 0) -> bytes:
    """Return a GOAWAY frame."""
    return GoAwayFrame(0, last).serialize()


def message(body: bytes = b"", *, compressed: int = 0, size: int | None = None) -> bytes:
    """Return a gRPC message, or what claims to be one."""
    return bytes([compressed]) + (len(body) if size is None else size).to_bytes(4, "big") + body


class RawPeer:
    """One connection, as frames."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.bodies: dict[int, bytes] = {}
        """What came as DATA on each stream."""
        self.headers: dict[int, dict[str, str]] = {}
        """The headers and trailers that came on each stream."""
        self.answers_pings = True
        self._received = bytearray()

    async def greet(self, **values: int) -> None:
        """Open the connection as a client, with these settings."""
        await self.send(PREFACE, settings(**values))

    async def send(self, *frames: bytes) -> None:
        """Send bytes, whatever they are."""
        await self.stream.send_all(b"".join(frames))

    def head(
        self, stream: int, headers: Sequence[tuple[str | bytes, str | bytes]], *flags: str, end_headers: bool = True
    ) -> bytes:
        """Return a HEADERS frame."""
        encoded = self.encoder.encode(headers)
        end = ("END_HEADERS",) if end_headers else ()
        return HeadersFrame(stream, encoded, flags=(*flags, *end)).serialize()

    def request(self, stream: int, name: str, *flags: str, **headers: str) -> bytes:
        """Return the HEADERS of a call; *headers* with underscores for hyphens, added or in place of the usual."""
        usual = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path(name),
            ":authority": "test",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        others = {key.replace("_", "-"): value for key, value in headers.items()}
        return self.head(stream, list((usual | others).items()), *flags)

    async def call(self, stream: int, name: str, body: bytes = b"", **headers: str) -> None:
        """Send a whole unary call."""
        await self.send(self.request(stream, name, **headers), data(stream, message(body), "END_STREAM"))

    async def welcome(self, **values: int) -> None:
        """Take a client's greeting, and answer it as a server with these settings."""
        while len(self._received) < len(PREFACE):
            self._received += await self.stream.receive_some(65536)
        assert self._received.startswith(PREFACE)
        del self._received[: len(PREFACE)]
        await self.send(settings(**values), SettingsFrame(0, flags=["ACK"]).serialize())

    async def receive(self) -> Frame | None:
        """Return the next frame; None at the end of the connection."""
        while not (frame := self._parsed()):
            try:
                more = await self.stream.receive_some(65536)
            except trio.BrokenResourceError:
                return None
            if not more:
                return None
            self._received += more
        if self.answers_pings and isinstance(frame, PingFrame) and "ACK" not in frame.flags:
            await self.send(PingFrame(0, frame.opaque_data, flags=["ACK"]).serialize())
        return frame

    def _parsed(self) -> Frame | None:
        if len(self._received) < 9:
            return None
        frame, length = Frame.parse_frame_header(memoryview(bytes(self._received[:9])))
        if len(self._received) < 9 + length:
            return None
        frame.parse_body(memoryview(bytes(self._received[9 : 9 + length])))
        del self._received[: 9 + length]
        if isinstance(frame, DataFrame):
            self.bodies[frame.stream_id] = self.bodies.get(frame.stream_id, b"") + frame.data
        elif isinstance(frame, HeadersFrame):
            headers = self.headers.setdefault(frame.stream_id, {})
            headers |= {str(name): str(value) for name, value in self.decoder.decode(frame.data)}
        return frame

    async def wait_for(self, kind: type[Frame], stream: int | None = None, *flags: str) -> Any:
        """Return the next frame of that *kind*; fail when the connection ends before."""
        return await self.wait_until(
            lambda frame: (
                isinstance(frame, kind)
                and not isinstance(frame, ExtensionFrame)
                and stream in {None, frame.stream_id}
                and all(flag in frame.flags for flag in flags)
            )
        )

    async def wait_until(self, wanted: Callable[[Frame], bool]) -> Frame:
        """Return the next frame that is *wanted*; fail when the connection ends before."""
        with trio.fail_after(PATIENCE):
            while (frame := await self.receive()) is not None:
                if wanted(frame):
                    return frame
        raise AssertionError("the connection has ended")

    async def answer(self, stream: int) -> dict[str, str]:
        """Return the headers and trailers of a stream once it has ended."""
        await self.wait_until(lambda frame: frame.stream_id == stream and "END_STREAM" in frame.flags)
        return self.headers[stream]

    async def wait_closed(self, within: float = math.inf) -> list[Frame]:
        """Return the frames that come until the connection ends."""
        frames = []
        with trio.fail_after(min(within, PATIENCE)):
            while (frame := await self.receive()) is not None:
                frames.append(frame)
        return frames


PATIENCE = 10_000.0
"""Seconds; tests on real sockets have pytest's own limit."""


@asynccontextmanager
async def open_peer(port: int) -> AsyncIterator[RawPeer]:
    """Give a raw peer of a server on this machine; it has said nothing yet."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        yield RawPeer(stream)


@asynccontextmanager
async def open_memory_peer(*services: Any, lockstep: bool = False, **options: Any) -> AsyncIterator[RawPeer]:
    """Give a raw peer of a server without a network, for tests on the virtual clock.

    With *lockstep* the server cannot send what the peer does not read.
    """
    pair = trio.testing.lockstep_stream_pair if lockstep else trio.testing.memory_stream_pair
    ours, theirs = pair()
    with socket.socket() as unused:
        server = RpcServer(services, unused, grace=1.0, **options)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server._serve, nursery, theirs)
            yield RawPeer(ours)
            nursery.cancel_scope.cancel()
