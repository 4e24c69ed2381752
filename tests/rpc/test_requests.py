"""Requests that no proper client makes: what HTTP/2 carries but gRPC does not allow, and what never comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from hyperframe.frame import DataFrame, HeadersFrame, RstStreamFrame, WindowUpdateFrame
from structlog.testing import capture_logs

from promptpipe.rpc.calls import PATIENCE_SECONDS
from promptpipe.rpc.http2.stream import YIELD_EVERY
from tests.support.http2 import data, message, open_memory_peer, reset, settings, window
from tests.support.rpc import Methods, Service

if TYPE_CHECKING:
    from trio.testing import MockClock

    from promptpipe.rpc.stream import RpcStream

OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, INTERNAL = "0", "3", "4", "13"
ECHO = StringValue(value="hello").SerializeToString()


async def test_whole_call_is_answered(autojump_clock: MockClock) -> None:
    """First the headers, then the message, then the status."""
    async with open_memory_peer(Methods()) as peer:
        await peer.greet()
        await peer.call(1, "echo", ECHO)
        headers = await peer.answer(1)
        assert (headers[":status"], headers["grpc-status"]) == ("200", OK)
        assert headers["content-type"].startswith("application/grpc")
        assert peer.bodies[1] == message(ECHO)


async def test_get_is_no_call(autojump_clock: MockClock) -> None:
    async with open_memory_peer(Methods()) as peer:
        await peer.greet()
        await peer.send(peer.head(1, [(":method", "GET"), (":path", "/"), (":scheme", "http")], "END_STREAM"))
        assert (await peer.answer(1))[":status"] == "405"


@pytest.mark.parametrize("kind", ["text/html", "application/json", "application/grpc+json", "application/grpc-web", ""])
async def test_other_content_is_refused(autojump_clock: MockClock, kind: str) -> None:
    async with open_memory_peer(Methods()) as peer:
        await peer.greet()
        await peer.call(1, "echo", ECHO, content_type=kind)
        assert (await peer.answer(1))[":status"] == "415"


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc+proto"])
async def test_both_names_of_the_content_are_taken(autojump_clock: MockClock, kind: str) -> None:
    async with open_memory_peer(Methods()) as peer:
        await peer.greet()
        await peer.call(1, "echo", ECHO, content_type=kind)
        assert (await peer.answer(1))["grpc-status"] == OK


@pytest.mark.parametrize("value", ["", "1", "S", "-1S", "1.5S", "1s", "123456789S", "1 S", "٣S"])
async def test_timeout_that_is_none_is_an_invalid_argument(autojump_clock: MockClock, value: str) -> None:
    """The format is at most eight digits and a unit ("gRPC over HTTP2", Timeout)."""
    methods = Methods()
    async with open_memory_peer(methods) as peer:
        await peer.greet()
        await peer.call(1, "echo", ECHO, grpc_timeout=value)
        assert (await peer.answer(1))["grpc-status"] == INVALID_ARGUMENT
    assert methods.begun == []


@pytest.mark.parametrize(
    ("value", "seconds"), [("1H", 3600), ("2M", 120), ("3S", 3), ("40000m", 40), ("5000000u", 5), ("99999999n", 0.1)]
)
async def test_deadline_is_kept_in_every_unit(autojump_clock: MockClock, value: str, seconds: float) -> None:
    async with open_memory_peer(Methods()) as peer:
        await peer.greet()
        began = trio.current_time()
        await peer.call(1, "hang", ECHO, grpc_timeout=value)
        assert (await peer.answer(1))["grpc-status"] == DEADLINE_EXCEEDED
        assert trio.current_time() - began == pytest.approx(seconds, abs=0.1)


@pytest.mark.parametrize("value", ["a", "abcde", "é"])
async def test_binary_metadata_that_is_none_is_an_invalid_argument(autojump_clock: MockClock, value: str) -> None:
    async with open_memory_peer(Methods()) as peer:
        await peer.greet()
        await peer.call(1, "echo", ECHO, some_bin=value)
        assert (await peer.answer(1))["grpc-status"] == INVALID_ARGUMENT


@pytest.mark.parametrize(
    "frames", [[], [message(ECHO)[:3]], [message(ECHO)[:-1]]], ids=["nothing", "half a prefix", "half a message"]
)
async def test_request_that_never_arrives_ends(autojump_clock: MockClock, frames: list[bytes]) -> None:
    """A client that begins a unary call and falls silent holds its place for a while only."""
    async with open_memory_peer(Methods()) as peer:
        await peer.greet()
        began = trio.current_time()
        await peer.send(peer.request(1, "echo"), *(data(1, frame) for frame in frames))
        assert (await peer.answer(1))["grpc-status"] == DEADLINE_EXCEEDED
        assert trio.current_time() - began == pytest.approx(PATIENCE_SECONDS, abs=1.0)


async def test_stream_of_requests_may_take_its_time(autojump_clock: MockClock) -> None:
    async with open_memory_peer(Methods()) as peer:
        await peer.greet()
        await peer.send(peer.request(1, "join"), data(1, message(ECHO)))
        await trio.sleep(PATIENCE_SECONDS * 1.5)
        await peer.send(data(1, message(ECHO), "END_STREAM"))
        assert (await peer.answer(1))["grpc-status"] == OK


@pytest.mark.parametrize("body", [message(ECHO)[:3], message(ECHO)[:-1]], ids=["half a prefix", "half a message"])
async def test_stream_that_ends_within_a_message_is_an_error(autojump_clock: MockClock, body: bytes) -> None:
    methods = Methods()
    async with open_memory_peer(methods) as peer:
        await peer.greet()
        await peer.send(peer.request(1, "echo"), data(1, body, "END_STREAM"))
        assert (await peer.answer(1))["grpc-status"] == INTERNAL


async def test_unary_call_without_a_message_is_an_invalid_argument(autojump_clock: MockClock) -> None:
    async with open_memory_peer(Methods()) as peer:
        await peer.greet()
        await peer.send(peer.request(1, "echo", "END_STREAM"))
        assert (await peer.answer(1))["grpc-status"] == INVALID_ARGUMENT


async def test_huge_message_is_refused_before_it_comes(autojump_clock: MockClock) -> None:
    """Its size is known from its first bytes; of the rest nothing is kept."""
    async with open_memory_peer(Methods()) as peer:
        await peer.greet()
        await peer.send(peer.request(1, "echo"), data(1, message(size=2**32 - 1)))
        assert (await peer.answer(1))["grpc-status"] == "8"
        assert (await peer.wait_for(RstStreamFrame, 1)).error_code == 0


async def test_client_is_told_to_stop_sending_after_an_early_answer(autojump_clock: MockClock) -> None:
    """With NO_ERROR, so that the answer counts (RFC 9113, section 8.1)."""
    async with open_memory_peer(Methods()) as peer:
        await peer.greet()
        await peer.send(peer.request(1, "missing"))
        assert (await peer.answer(1))["grpc-status"] == "12"
        assert (await peer.wait_for(RstStreamFrame, 1)).error_code == 0


async def test_call_that_was_reset_before_it_began_does_not_begin(autojump_clock: MockClock) -> None:
    methods = Methods()
    async with open_memory_peer(methods) as peer:
        await peer.greet()
        await peer.send(peer.request(1, "echo"), data(1, message(ECHO), "END_STREAM"), reset(1))
        await peer.call(3, "echo", ECHO)
        assert (await peer.answer(3))["grpc-status"] == OK
    assert methods.begun == ["echo"]


@pytest.mark.parametrize("gone", [reset(1), None], ids=["call", "connection"])
async def test_client_that_goes_is_no_fault_of_ours(autojump_clock: MockClock, gone: bytes | None) -> None:
    """Two tasks of its handler find out at once; nothing of that is logged as an error."""
    methods = Methods()
    with capture_logs() as logs:
        async with open_memory_peer(methods) as peer:
            await peer.greet()
            await peer.send(peer.request(1, "hang_up"))
            while len(peer.bodies.get(1, b"")) < 65_535:
                await peer.wait_for(DataFrame, 1)
            if gone is None:
                await peer.stream.aclose()
            else:
                await peer.send(gone)
            await trio.sleep(1)
            assert methods.ended == ["hang_up"]
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


async def test_many_large_answers_at_once_are_all_sent(autojump_clock: MockClock) -> None:
    """They wait for the connection together, and for their windows each; none is forgotten."""
    async with open_memory_peer(Methods()) as peer:
        await peer.greet(INITIAL_WINDOW_SIZE=10_000)
        await peer.send(window(0, 2**30))
        streams = range(1, 41, 2)
        body = message(Int64Value(value=200_000).SerializeToString())
        await peer.send(*(peer.request(stream, "big") + data(stream, body, "END_STREAM") for stream in streams))
        while any(len(peer.bodies.get(stream, b"")) < 10_000 for stream in streams):
            await peer.wait_for(DataFrame)
        await peer.send(*(window(stream, 2**30) for stream in streams))
        while not all("grpc-status" in peer.headers[stream] for stream in streams):
            await peer.wait_for(HeadersFrame)
        assert {len(peer.bodies[stream]) for stream in streams} == {200_009}


async def test_answer_that_is_cut_short_is_never_ok(autojump_clock: MockClock) -> None:
    """Not even when the handler minds it so little that it goes on."""

    async def careless(call: RpcStream[StringValue, StringValue]) -> None:
        request = await call.recv_message()
        assert request is not None
        with trio.move_on_after(1):
            await call.send_message(request)
        with pytest.raises(RuntimeError, match="within a message"):
            await call.send_message(request)

    async with open_memory_peer(Service(careless)) as peer:
        await peer.greet(INITIAL_WINDOW_SIZE=1000)
        await peer.call(1, "careless", StringValue(value="x" * 5000).SerializeToString())
        assert (await peer.answer(1))["grpc-status"] == INTERNAL
        assert len(peer.bodies[1]) == 1000


async def test_answer_that_could_not_begin_is_not_cut_short(autojump_clock: MockClock) -> None:
    async def patient(call: RpcStream[StringValue, StringValue]) -> None:
        request = await call.recv_message()
        assert request is not None
        with trio.move_on_after(1):
            await call.send_message(request)
        await call.send_message(request)

    async with open_memory_peer(Service(patient)) as peer:
        await peer.greet(INITIAL_WINDOW_SIZE=0)
        await peer.call(1, "patient", ECHO)
        await trio.sleep(2)
        await peer.send(window(1, 1000))
        assert (await peer.answer(1))["grpc-status"] == OK
        assert peer.bodies[1] == message(ECHO)


async def test_handler_may_stop_waiting_for_a_message_and_wait_again(autojump_clock: MockClock) -> None:
    """Wherever within the message the bytes stop, none is lost."""

    async def impatient(call: RpcStream[StringValue, StringValue]) -> None:
        request = None
        while request is None:
            with trio.move_on_after(1):
                request = await call.recv_message()
        await call.send_message(request)

    whole = message(ECHO)
    async with open_memory_peer(Service(impatient)) as peer:
        await peer.greet()
        for number in range(len(whole)):
            stream = 2 * number + 1
            await peer.send(peer.request(stream, "impatient"), data(stream, whole[:number]))
            await trio.sleep(3.5)
            await peer.send(data(stream, whole[number:], "END_STREAM"))
            assert (await peer.answer(stream))["grpc-status"] == OK
            assert peer.bodies[stream] == whole


@pytest.mark.parametrize(("name", "body"), [("join", message() * 20_000), ("count", message(b"\x08\xa0\x9c\x01"))])
async def test_long_stream_lets_others_have_their_turn(autojump_clock: MockClock, name: str, body: bytes) -> None:
    """Though each of its 20,000 messages is at hand, or may be sent, at once."""
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with open_memory_peer(Methods()) as peer, trio.open_nursery() as nursery:
        await peer.greet(INITIAL_WINDOW_SIZE=2**30)
        frames = (data(1, body[start : start + 16_384]) for start in range(0, len(body), 16_384))
        await peer.send(window(0, 2**30), peer.request(1, name), *frames, data(1, b"", "END_STREAM"))
        nursery.start_soon(take_turns)
        assert (await peer.answer(1))["grpc-status"] == OK
        nursery.cancel_scope.cancel()
    assert turns > 20_000 / YIELD_EVERY


@pytest.mark.parametrize("step", [1, 700, 5000])
async def test_answer_waits_for_the_window_of_its_stream(autojump_clock: MockClock, step: int) -> None:
    """Not a byte more is sent than the client takes."""
    request = StringValue(value="x" * 4000).SerializeToString()
    async with open_memory_peer(Methods()) as peer:
        await peer.greet(INITIAL_WINDOW_SIZE=0)
        await peer.call(1, "echo", request)
        await peer.wait_for(HeadersFrame, 1)
        allowed = 0
        while len(peer.bodies.get(1, b"")) < len(message(request)):
            await peer.send(window(1, step))
            allowed += step
            await peer.wait_for(DataFrame, 1)
            assert len(peer.bodies[1]) <= allowed
        assert (await peer.answer(1))["grpc-status"] == OK


async def test_settings_may_shrink_and_widen_a_window_under_way(autojump_clock: MockClock) -> None:
    """Even below nothing (RFC 9113, section 6.9.2)."""
    request = StringValue(value="x" * 4000).SerializeToString()
    async with open_memory_peer(Methods()) as peer:
        await peer.greet(INITIAL_WINDOW_SIZE=1000)
        await peer.call(1, "echo", request)
        await peer.wait_for(DataFrame, 1)
        await peer.send(settings(INITIAL_WINDOW_SIZE=0))
        await peer.send(window(1, 500))
        await peer.send(settings(INITIAL_WINDOW_SIZE=10_000))
        assert (await peer.answer(1))["grpc-status"] == OK
        assert peer.bodies[1] == message(request)


async def test_padding_is_given_back(autojump_clock: MockClock) -> None:
    """Padding counts for the windows (RFC 9113, section 6.9.1), though it is no data."""
    async with open_memory_peer(Methods()) as peer:
        await peer.greet()
        await peer.send(peer.request(1, "join"))
        for _ in range(6000):
            await peer.send(DataFrame(1, message(b""), pad_length=255, flags=["PADDED"]).serialize())
        await peer.send(data(1, b"", "END_STREAM"))
        credit = 0
        while "END_STREAM" not in (frame := await peer.wait_until(lambda _: True)).flags:
            if isinstance(frame, WindowUpdateFrame) and frame.stream_id == 0:
                credit += frame.window_increment
        assert peer.headers[1]["grpc-status"] == OK
        assert credit > 6000 * 261 - 2**21 / 2
