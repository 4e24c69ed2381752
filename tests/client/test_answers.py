"""Answers that are none of gRPC's: each is an error of its call, and the channel goes on."""

from __future__ import annotations

import pytest
import trio
from grpclib.const import Status
from hyperframe.frame import HeadersFrame

from tests.client.asking import HELLO, OK, answer, ask, open_raw_server, refused
from tests.support.http2 import RawPeer, data, message, reset

WRONG = {
    "another status of HTTP": ([[(":status", "503")]], b"", Status.UNAVAILABLE, "HTTP 503"),
    "not found": ([[(":status", "404")]], b"", Status.UNIMPLEMENTED, "HTTP 404"),
    "a teapot": ([[(":status", "418")]], b"", Status.UNKNOWN, "HTTP 418"),
    "no status of HTTP": ([[("x", "y")]], b"", Status.UNKNOWN, "HTTP"),
    "a page": ([[(":status", "200"), ("content-type", "text/html")]], b"<html>", Status.UNKNOWN, "text/html"),
    "no content type": ([[(":status", "200")]], b"", Status.UNKNOWN, "content type"),
    "no status": ([OK, [("x", "y")]], message(b""), Status.UNKNOWN, "without a status"),
    "status only, an error": (
        [[*OK, ("grpc-status", "5"), ("grpc-message", "gone%21")]],
        b"",
        Status.NOT_FOUND,
        "gone!",
    ),
    "status that is no number": ([[*OK, ("grpc-status", "x")]], b"", Status.UNKNOWN, ""),
    "status of the future": ([[*OK, ("grpc-status", "99")]], b"", Status.UNKNOWN, ""),
    "details that are none": (
        [[*OK, ("grpc-status", "5"), ("grpc-message", "gone"), ("grpc-status-details-bin", "////")]],
        b"",
        Status.NOT_FOUND,
        "gone",
    ),
    "no message": ([OK, [("grpc-status", "0")]], b"", Status.INTERNAL, "no message"),
    "half a message": ([OK, [("grpc-status", "0")]], message(size=9), Status.INTERNAL, "within a message"),
    "unreadable message": ([OK, [("grpc-status", "0")]], message(b"\xff"), Status.INTERNAL, "StringValue"),
    "compressed message": (
        [OK, [("grpc-status", "0")]],
        message(b"", compressed=1),
        Status.UNIMPLEMENTED,
        "compressed",
    ),
}


@pytest.mark.parametrize("name", WRONG)
async def test_wrong_answer_is_an_error_of_its_call(name: str) -> None:
    """And the next call on the same connection is answered."""
    heads, body, status, text = WRONG[name]

    async def serve(peer: RawPeer) -> None:
        await peer.welcome()
        await peer.wait_for(HeadersFrame)
        await peer.send(peer.head(1, heads[0], *(["END_STREAM"] if not body and len(heads) == 1 else [])))
        if body:
            await peer.send(data(1, body, *(["END_STREAM"] if len(heads) == 1 else [])))
        for head in heads[1:]:
            await peer.send(peer.head(1, head, "END_STREAM"))
        await peer.wait_for(HeadersFrame, 3)
        await peer.send(*answer(peer, 3))
        await peer.wait_closed()

    async with open_raw_server(serve) as channel:
        error = await refused(ask(channel, "echo", HELLO))
        assert error.status is status
        assert text in (error.message or "")
        assert await ask(channel, "echo", HELLO) == HELLO


@pytest.mark.parametrize(
    ("code", "status"),
    [(0, Status.INTERNAL), (2, Status.INTERNAL), (7, Status.UNAVAILABLE), (8, Status.CANCELLED), (99, Status.INTERNAL)],
)
async def test_reset_is_an_error_of_its_call(code: int, status: Status) -> None:
    """Which one, "gRPC over HTTP2" says (Errors)."""

    async def serve(peer: RawPeer) -> None:
        await peer.welcome()
        await peer.wait_for(HeadersFrame)
        await peer.send(reset(1, code))
        await peer.wait_closed()

    async with open_raw_server(serve) as channel:
        assert (await refused(ask(channel, "echo", HELLO))).status is status


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", bytes(100), b"SSH-2.0-OpenSSH\r\n"])
async def test_server_of_another_protocol_is_unavailable(words: bytes) -> None:
    async def serve(peer: RawPeer) -> None:
        await peer.send(words)

    async with open_raw_server(serve) as channel:
        with trio.fail_after(5):
            assert (await refused(ask(channel, "echo", HELLO))).status is Status.UNAVAILABLE


async def test_server_that_does_not_say_a_word_is_not_waited_for_longer_than_the_deadline() -> None:
    async def serve(peer: RawPeer) -> None:
        await peer.wait_closed()

    async with open_raw_server(serve) as channel:
        with trio.fail_after(5):
            error = await refused(ask(channel, "echo", HELLO, timeout=0.1))
    assert error.status is Status.DEADLINE_EXCEEDED
