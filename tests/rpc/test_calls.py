"""Calls, with grpcio as the client: what gRPC promises, and what becomes of calls that go wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
import trio
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue
from google.rpc import error_details_pb2, status_pb2
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from structlog.testing import capture_logs

from promptpipe.rpc.calls import MAX_MESSAGE
from tests.support.eventually import eventually
from tests.support.rpc import SECRET, Client, Methods, Service, failure, open_client, open_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from promptpipe.rpc.stream import RpcStream


@pytest.fixture
def methods() -> Methods:
    return Methods()


@pytest.fixture
async def port(methods: Methods) -> AsyncIterator[int]:
    async with open_server(methods) as (_, port):
        yield port


@pytest.fixture
async def client(port: int) -> AsyncIterator[Client]:
    async with open_client(port) as client:
        yield client


def text(value: str) -> StringValue:
    return StringValue(value=value)


# ---------------------------------------------------------------- what goes well


async def test_unary_call_is_answered(client: Client) -> None:
    assert (await client.unary("echo", text("grüezi"))).value == "grüezi"


async def test_empty_message_is_a_message(client: Client) -> None:
    assert (await client.unary("echo", text(""))).value == ""


async def test_stream_of_requests_is_collected(client: Client) -> None:
    assert (await client.upload("join", map(text, "abc"))).value == "abc"


async def test_empty_stream_of_requests_is_answered(client: Client) -> None:
    assert (await client.upload("join", [])).value == ""


async def test_stream_of_answers_comes_in_order(client: Client) -> None:
    answers = await client.download("count", Int64Value(value=2000), Int64Value)
    assert [answer.value for answer in answers] == list(range(2000))


async def test_empty_stream_of_answers_is_ok(client: Client) -> None:
    assert await client.download("count", Int64Value(value=0), Int64Value) == []


async def test_both_sides_stream(client: Client) -> None:
    answers = await client.chat("chat", [text(str(n)) for n in range(500)])
    assert [answer.value for answer in answers] == [str(n) for n in range(500)]


async def test_600_calls_at_once_on_one_connection(client: Client) -> None:
    """None is lost, none is mixed up with another."""
    calls = [client.begin("echo", text(str(n))) for n in range(600)]
    answers = await trio.to_thread.run_sync(lambda: [call.result().value for call in calls])
    assert answers == [str(n) for n in range(600)]


async def test_large_uploads_at_once_do_not_block_each_other(port: int) -> None:
    """Together they are larger than the connection's window: what has come of each must not keep out the rest."""
    size = 250_000
    async with open_client(port) as client:
        request = BytesValue(value=bytes(size)).SerializeToString()
        call: Any = client.channel.unary_unary("/test.Service/measure", None, Int64Value.FromString)
        calls = [call.future(request, timeout=20) for _ in range(40)]
        answers = await trio.to_thread.run_sync(lambda: [call.result().value for call in calls])
    assert answers == [size] * 40


async def test_metadata_arrives_as_text_and_as_bytes(client: Client, methods: Methods) -> None:
    """Binary values may hold any byte; what belongs to gRPC itself is not among them."""
    await client.unary("echo", metadata=[("colour", "blue"), ("raw-bin", b"\x00\xff\n")])
    [metadata] = methods.metadata
    assert metadata["colour"] == "blue"
    assert metadata["raw-bin"] == b"\x00\xff\n"
    assert not {name for name in metadata if name.startswith((":", "grpc-"))}


# ---------------------------------------------------------------- deadlines and cancellation


@pytest.mark.parametrize("name", ["hang", "endless"])
async def test_deadline_ends_the_call_on_both_sides(client: Client, methods: Methods, name: str) -> None:
    """The client sees DEADLINE_EXCEEDED, and the handler does not go on without it."""
    call: Any = client.channel.unary_stream(f"/test.Service/{name}")
    await client.unary("echo")
    error = await failure(trio.to_thread.run_sync(lambda: list(call(b"", timeout=0.5))))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: methods.ended == ["echo", name], within=2.0)


async def test_canceled_call_cancels_its_handler(client: Client, methods: Methods) -> None:
    call = client.begin("hang")
    await eventually(lambda: methods.begun == ["hang"])
    call.cancel()
    await eventually(lambda: methods.canceled == ["hang"], within=2.0)


async def test_canceled_stream_cancels_its_handler(client: Client, methods: Methods) -> None:
    call = client.begin_download("endless", text("x"))
    await trio.to_thread.run_sync(next, call)
    call.cancel()
    await eventually(lambda: methods.ended == ["endless"], within=2.0)


async def test_client_that_hangs_up_cancels_its_handlers(port: int, methods: Methods) -> None:
    async with open_client(port) as client:
        calls = [client.begin("hang"), client.begin("hang")]
        await eventually(lambda: methods.begun == ["hang", "hang"])
    assert len(calls) == 2
    await eventually(lambda: methods.canceled == ["hang", "hang"], within=2.0)


# ---------------------------------------------------------------- errors


async def test_status_text_and_details_arrive(client: Client) -> None:
    """Details are those of `google.rpc`; text may hold any character."""
    error = await failure(client.unary("refuse", text("no jöb % here\n")))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "no jöb % here\n"
    trailers = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ResourceInfo()
    assert status.details[0].Unpack(info)
    assert info.resource_name == "ä"


@pytest.mark.parametrize("character", ["x", "漢", "🦆"])
async def test_long_status_text_is_shortened(client: Client, character: str) -> None:
    """Trailers larger than a client takes would hide the status."""
    error = await failure(client.unary("refuse", text(character * 5000)))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == character * 256


async def test_details_that_are_too_large_are_left_out() -> None:
    """For the same reason."""

    async def explain(call: RpcStream[StringValue, StringValue]) -> None:
        await call.recv_message()
        raise GRPCError(Status.NOT_FOUND, "gone", [StringValue(value="x" * 20_000)])

    async with open_server(Service(explain)) as (_, port), open_client(port) as client:
        error = await failure(client.unary("explain"))
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "gone")
    assert "grpc-status-details-bin" not in dict(error.trailing_metadata())


async def test_error_within_a_nursery_is_the_calls_error(client: Client) -> None:
    """A nursery wraps what is raised in it; the client does not have to know."""
    error = await failure(client.unary("refuse_in_nursery", text("busy")))
    assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "busy")


async def test_crash_is_logged_and_tells_nothing(client: Client) -> None:
    """The client learns that it was us, and no more; the log has the rest."""
    with capture_logs() as logs:
        error = await failure(client.unary("crash"))
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert SECRET not in str(error.trailing_metadata())
    [entry] = [entry for entry in logs if entry["log_level"] == "error"]
    assert entry["method"] == "/test.Service/crash"
    assert entry["exc_info"]


async def test_crash_after_an_answer_fails_the_stream(client: Client) -> None:
    call = client.begin_download("crash_late")
    assert (await trio.to_thread.run_sync(next, call)).value == "one"
    error = await failure(trio.to_thread.run_sync(next, call))
    assert error.code() is grpc.StatusCode.INTERNAL


async def test_handler_that_does_not_answer_is_an_error(client: Client) -> None:
    error = await failure(client.unary("silent"))
    assert error.code() is grpc.StatusCode.INTERNAL


@pytest.mark.parametrize("name", ["/test.Service/missing", "/other.Service/echo", "/", "/x"])
async def test_unknown_method_is_unimplemented(client: Client, name: str) -> None:
    assert (await failure(client.unary(name))).code() is grpc.StatusCode.UNIMPLEMENTED


async def test_message_of_the_limit_is_taken_and_one_more_byte_is_not(client: Client) -> None:
    """RESOURCE_EXHAUSTED, and the text says the limit."""
    most = BytesValue(value=bytes(MAX_MESSAGE - 4))
    assert most.ByteSize() == MAX_MESSAGE
    assert (await client.unary("measure", most, Int64Value)).value == MAX_MESSAGE - 4
    error = await failure(client.unary("measure", BytesValue(value=bytes(MAX_MESSAGE - 3)), Int64Value))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(MAX_MESSAGE) in error.details()


async def test_compressed_message_is_unimplemented(client: Client) -> None:
    error = await failure(client.unary("echo", text("x" * 1000), compression=grpc.Compression.Gzip))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_unreadable_message_is_an_invalid_argument(client: Client) -> None:
    error = await failure(client.unary("echo", b"\xff\xff\xff"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "StringValue" in error.details()


async def test_upload_that_is_refused_fails_with_its_status(client: Client) -> None:
    """Though most of it has not been read, and is on its way still."""
    for _ in range(20):
        error = await failure(client.upload("refuse_upload", (BytesValue(value=bytes(60_000)) for _ in range(50))))
        assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not now")


# ---------------------------------------------------------------- flow control


@pytest.mark.parametrize("lookahead", [10, 70_000])
async def test_large_answer_fits_through_a_small_window(port: int, lookahead: int) -> None:
    """It waits for the client, and arrives whole."""
    limits = {"http2.lookahead_bytes": lookahead, "http2.bdp_probe": 0, "max_receive_message_length": -1}
    async with open_client(port, options=limits) as client:
        answer = await client.unary("big", Int64Value(value=3_000_000), BytesValue)
    assert len(answer.value) == 3_000_000


async def test_client_that_does_not_read_a_stream_blocks_no_other(client: Client, port: int) -> None:
    """Neither its own other calls nor those of other connections."""
    stuck = client.begin_download("endless", text("x" * 50_000))
    await trio.to_thread.run_sync(next, stuck)
    with trio.fail_after(10):
        for _ in range(20):
            assert (await client.unary("echo", text("same connection"))).value
            async with open_client(port) as other:
                assert (await other.unary("echo", text("another"))).value
    stuck.cancel()
