"""Peers that take their time, on the virtual clock: nobody holds a connection for nothing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from hyperframe.frame import GoAwayFrame, PingFrame

from promptpipe.rpc.http2.connection import HIGH_WATER, MAX_UNSENT, SEND_SECONDS
from promptpipe.rpc.server import DEFAULT_LIMITS
from tests.support.http2 import PREFACE, data, goaway, message, open_memory_peer, ping, settings, window
from tests.support.rpc import Methods, Service

if TYPE_CHECKING:
    from trio.testing import MockClock

    from promptpipe.rpc.stream import RpcStream
    from tests.support.http2 import RawPeer

LIMITS = DEFAULT_LIMITS.each
ECHO = StringValue(value="hello").SerializeToString()


@pytest.mark.parametrize("words", [b"", PREFACE[:5], PREFACE, PREFACE + settings()[:8]])
async def test_connection_that_does_not_settle_is_closed(autojump_clock: MockClock, words: bytes) -> None:
    """A client opens with its settings; one that does not is none."""
    async with open_memory_peer(Methods()) as peer:
        await peer.send(words)
        await peer.wait_closed()
        assert trio.current_time() == pytest.approx(LIMITS.settle)


async def test_silent_peer_is_asked_and_then_given_up(autojump_clock: MockClock) -> None:
    """A machine that is gone sends no end of its connection; its calls would run for ever."""
    methods = Methods()
    async with open_memory_peer(methods) as peer:
        peer.answers_pings = False
        await peer.greet()
        await peer.call(1, "hang", ECHO)
        await peer.wait_until(lambda frame: isinstance(frame, PingFrame))
        assert trio.current_time() == pytest.approx(LIMITS.ping_after, abs=LIMITS.pong_within)
        await peer.wait_closed()
        assert trio.current_time() == pytest.approx(LIMITS.ping_after + LIMITS.pong_within, abs=LIMITS.pong_within)
    assert methods.canceled == ["hang"]


async def test_peer_that_answers_pings_is_kept(autojump_clock: MockClock) -> None:
    methods = Methods()
    async with open_memory_peer(methods) as peer:
        await peer.greet()
        await peer.call(1, "hang", ECHO)
        for _ in range(50):
            await peer.wait_for(PingFrame)
        await peer.call(3, "echo", ECHO)
        assert (await peer.answer(3))["grpc-status"] == "0"
    assert trio.current_time() >= 50 * LIMITS.ping_after


async def test_idle_connection_is_closed_with_notice(autojump_clock: MockClock) -> None:
    """It ends when the client hangs up, or soon after."""
    async with open_memory_peer(Methods()) as peer:
        await peer.greet()
        await trio.sleep(50)
        await peer.call(1, "echo", ECHO)
        frame = await peer.wait_for(GoAwayFrame)
        assert (frame.error_code, frame.last_stream_id) == (0, 1)
        assert trio.current_time() == pytest.approx(50 + LIMITS.idle, abs=LIMITS.pong_within)
        noticed = trio.current_time()
        await peer.wait_closed()
        assert trio.current_time() - noticed == pytest.approx(LIMITS.last_words)


async def test_call_that_comes_after_the_notice_is_not_served(autojump_clock: MockClock) -> None:
    """The client was told so, and may have asked another server already."""
    methods = Methods()
    async with open_memory_peer(methods) as peer:
        await peer.greet()
        await peer.wait_for(GoAwayFrame)
        await peer.call(1, "echo", ECHO)
        await peer.wait_closed()
    assert methods.begun == []


async def test_connection_with_a_call_is_not_idle(autojump_clock: MockClock) -> None:
    async with open_memory_peer(Methods()) as peer:
        await peer.greet()
        await peer.send(peer.request(1, "join"))
        with trio.move_on_after(LIMITS.idle * 2):
            await peer.wait_for(GoAwayFrame)
        await peer.send(data(1, message(ECHO), "END_STREAM"))
        assert (await peer.answer(1))["grpc-status"] == "0"


async def test_peer_that_stops_reading_is_given_up(autojump_clock: MockClock) -> None:
    """A large answer does not wait for ever, nor does its handler."""
    methods = Methods()
    async with open_memory_peer(methods, lockstep=True) as peer:
        await _greet(peer)
        await peer.call(1, "big", Int64Value(value=10_000_000).SerializeToString())
        began = trio.current_time()
        await trio.sleep(SEND_SECONDS + 1)
        assert methods.ended == ["big"]
        await peer.wait_closed()
        assert trio.current_time() - began < SEND_SECONDS + 2


async def test_handler_does_not_run_ahead_of_a_client_that_does_not_read(autojump_clock: MockClock) -> None:
    """However much the client says that it would take."""
    sent = 0

    async def talk(call: RpcStream[StringValue, StringValue]) -> None:
        nonlocal sent
        while True:
            await call.send_message(StringValue(value="x" * 1000))
            sent += 1

    async with open_memory_peer(Service(talk), lockstep=True) as peer:
        await _greet(peer, INITIAL_WINDOW_SIZE=2**30)
        await peer.send(window(0, 2**30), peer.request(1, "talk"))
        await trio.sleep(SEND_SECONDS / 2)
        assert 0 < sent * 1000 < HIGH_WATER * 2


@pytest.mark.parametrize("flood", [ping(), settings()], ids=["PING", "SETTINGS"])
async def test_flood_of_a_peer_that_does_not_read_ends(autojump_clock: MockClock, flood: bytes) -> None:
    """What it would have to be answered is bounded; so is the time."""
    async with open_memory_peer(Methods(), lockstep=True) as peer:
        await _greet(peer)
        began = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012
            while True:
                await peer.send(flood * 500)
                await trio.sleep(0.01)
        assert trio.current_time() - began <= SEND_SECONDS + LIMITS.last_words


async def test_peer_that_does_not_read_is_not_listened_to(autojump_clock: MockClock) -> None:
    """Answers to frames that cost it nothing do not pile up: from a bound on, no more is read."""
    async with open_memory_peer(Methods(), lockstep=True) as peer:
        await _greet(peer)
        await peer.send(peer.request(1, "missing", "END_STREAM"))
        sent = 0
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012
            while True:  # each is answered with a reset
                await peer.send(data(1) * 1000)
                sent += 1000
        assert sent * 13 < MAX_UNSENT * 2


async def test_goodbye_of_a_client_takes_nothing_from_its_answers(autojump_clock: MockClock) -> None:
    """Not even what was waiting to be sent."""
    async with open_memory_peer(Methods(), lockstep=True) as peer:
        await _greet(peer)
        await peer.call(1, "echo", ECHO)
        await trio.sleep(1)
        await peer.send(goaway())
        await trio.sleep(1)
        assert (await peer.answer(1))["grpc-status"] == "0"
        assert peer.bodies[1] == message(ECHO)
        await peer.wait_closed()


async def _greet(peer: RawPeer, **values: int) -> None:
    """Greet over a stream on which sending waits for the other side's reading."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(peer.greet, **values))
        await peer.receive()
