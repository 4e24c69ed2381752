"""The HTTP server among hostile peers: a connection fails alone."""

from __future__ import annotations

import struct
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from promptpipe.model.errors import AddressInUseError, SettingsError
from promptpipe.net import listen
from promptpipe.services.readiness import Readiness
from promptpipe.web import guard
from promptpipe.web.app import make_app
from promptpipe.web.server import HttpServer
from tests.support.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from quart_trio import QuartTrio

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = struct.pack(">I", 0)[1:] + bytes([4, 0, 0, 0, 0, 0])


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return an HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


@asynccontextmanager
async def open_server(app: QuartTrio | None = None) -> AsyncIterator[tuple[HttpServer, int]]:
    listener = listen("127.0.0.1", 0, "test")
    server = HttpServer("test", app or make_app({}, Readiness()), listener, grace=1.0)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            yield server, listener.getsockname()[1]
            server.stop()
    finally:
        listener.close()


async def exchange(port: int, *parts: bytes) -> bytes:
    """Send *parts*, and return what comes until the peer hangs up or is silent for a moment."""
    received = b""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        try:
            for part in parts:
                await stream.send_all(part)
            with trio.move_on_after(0.3):
                while data := await stream.receive_some():
                    received += data
        except trio.BrokenResourceError:
            pass
    return received


async def alive(port: int) -> bool:
    answer = await exchange(port, b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    return answer.startswith(b"HTTP/1.1 200")


GET_H2 = frame(1, 5, 1, bytes.fromhex("828487") + b"\x41\x01x")
ATTACKS = {
    "websocket upgrade with a trailing byte": [
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nX"
        )
    ],
    "1,500 PRIORITY frames": [
        PREFACE + SETTINGS + b"".join(frame(2, 0, 2 * n + 1, bytes([0, 0, 0, 0, 15])) for n in range(1500))
    ],
    "rapid reset": [
        PREFACE
        + SETTINGS
        + b"".join(
            frame(1, 5, 2 * n + 1, bytes.fromhex("828487") + b"\x41\x01x") + frame(3, 0, 2 * n + 1, bytes(4))
            for n in range(2000)
        )
    ],
    "DATA after an early response": [
        PREFACE + SETTINGS + frame(1, 4, 1, bytes.fromhex("838487") + b"\x41\x01x"),
        frame(0, 0, 1, bytes(1000)) * 20,
    ],
    "unknown frame": [PREFACE + SETTINGS + frame(0xFE, 0, 0, b"x" * 100) + GET_H2],
    "huge frame length": [PREFACE + SETTINGS + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(1000)],
    "SETTINGS flood": [PREFACE + SETTINGS * 5000],
    "garbage": [bytes(range(256)) * 40],
    "endless header": [b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000],
    "many headers": [b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n"],
    "conflicting lengths": [b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"],
    "negative length": [b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n"],
    "bad chunk": [b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nhello\r\n"],
    "TLS hello": [bytes.fromhex("16030100c8010000c40303") + bytes(300)],
    "nothing": [b""],
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_hostile_connection_fails_alone(name: str) -> None:
    """Whatever a peer sends, the server answers the next one, and stops when told to."""
    with trio.fail_after(10):
        async with open_server() as (_, port):
            for _ in range(3):
                await exchange(port, *ATTACKS[name])
            assert await alive(port)


async def test_attacks_at_once_do_not_stop_the_server() -> None:
    """All of them, together."""
    with trio.fail_after(20):
        async with open_server() as (_, port):
            async with trio.open_nursery() as nursery:
                for parts in ATTACKS.values():
                    nursery.start_soon(exchange, port, *parts)
            assert await alive(port)


async def test_peer_that_does_not_read_does_not_block_the_shutdown() -> None:
    """Its unread answer is given up after a few seconds, and the server ends."""
    app = make_app({}, Readiness())

    @app.get("/big")
    async def big() -> bytes:
        await trio.lowlevel.checkpoint()
        return bytes(50_000_000)

    with trio.fail_after(guard.SEND_SECONDS * 3):
        async with open_server(app) as (server, port):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
            await stream.receive_some(1)
            server.stop()
    await stream.aclose()


async def test_idle_connections_do_not_hold_up_the_shutdown() -> None:
    """A client that keeps its connection open for later is disconnected at once."""
    async with open_server() as (server, port):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        server.stop()
        with trio.fail_after(1.0):
            while await stream.receive_some():
                pass
    await stream.aclose()


async def test_request_at_hand_is_answered_before_the_end() -> None:
    """Stopping cuts no answer short."""
    app = make_app({}, Readiness())
    entered, leave = trio.Event(), trio.Event()

    @app.get("/slow")
    async def slow() -> str:
        entered.set()
        await leave.wait()
        return "done"

    async with open_server(app) as (server, port):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await entered.wait()
        server.stop()
        leave.set()
        answer = b""
        with trio.fail_after(5.0):
            while data := await stream.receive_some():
                answer += data
        assert answer.endswith(b"done")
    await stream.aclose()


async def test_connections_are_bounded() -> None:
    """One more than the bound is closed unanswered; when others go, there is room again."""
    async with open_server() as (_, port):
        crowd = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(guard.MAX_CONNECTIONS)]
        await eventually(lambda: guard.GuardedServer.open_connections == guard.MAX_CONNECTIONS)
        assert not await alive(port)
        for stream in crowd:
            await stream.aclose()
        await eventually(partial(alive, port))


def test_busy_port_is_said_plainly() -> None:
    """Which address, and which setting to change."""
    first = listen("127.0.0.1", 0, "PROMPTPIPE_HTTP_BIND")
    port = first.getsockname()[1]
    with pytest.raises(AddressInUseError, match=rf"127\.0\.0\.1:{port} is in use .* set PROMPTPIPE_HTTP_BIND"):
        listen("127.0.0.1", port, "PROMPTPIPE_HTTP_BIND")
    first.close()
    with pytest.raises(SettingsError, match=r"PROMPTPIPE_HTTP_BIND: cannot listen on 192\.0\.2\.1:8080"):
        listen("192.0.2.1", 8080, "PROMPTPIPE_HTTP_BIND")
