"""Our client's calls, against grpcio's server and against ours: the same promises."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue
from google.rpc.error_details_pb2 import ResourceInfo
from grpclib.const import Status

from promptpipe.client import open_channel
from promptpipe.client.channel import MAX_MESSAGE
from tests.client.asking import ask, call, refused
from tests.support.eventually import eventually
from tests.support.grpcio import open_grpcio_server
from tests.support.rpc import Methods, open_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture(params=["grpcio", "ours"])
async def peer(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Give a server's port, and what it has noted."""
    if request.param == "grpcio":
        async with open_grpcio_server() as peer:
            yield peer.port, peer.servicer
    else:
        methods = Methods()
        async with open_server(methods) as (_, port):
            yield port, methods


@pytest.fixture
async def channel(peer: Any) -> AsyncIterator[Any]:
    async with open_channel(f"localhost:{peer[0]}") as channel:
        yield channel


async def test_unary_call_is_answered(channel: Any) -> None:
    assert (await ask(channel, "echo", StringValue(value="grüezi"))).value == "grüezi"


async def test_answer_larger_than_any_window_arrives_whole(channel: Any) -> None:
    assert len((await ask(channel, "big", Int64Value(value=4_000_000))).value) == 4_000_000


async def test_answer_over_the_limit_is_refused(channel: Any) -> None:
    error = await refused(ask(channel, "big", Int64Value(value=MAX_MESSAGE)))
    assert error.status is Status.RESOURCE_EXHAUSTED
    assert (await ask(channel, "echo", StringValue(value="still here"))).value


async def test_requests_stream_up(channel: Any) -> None:
    async with call(channel, "join") as stream:
        for letter in "abc":
            await stream.send_message(StringValue(value=letter))
        await stream.end()
        assert (await stream.recv_message()).value == "abc"


async def test_empty_stream_of_requests_is_answered(channel: Any) -> None:
    async with call(channel, "join") as stream:
        await stream.end()
        assert (await stream.recv_message()).value == ""


async def test_answers_stream_down(channel: Any) -> None:
    async with call(channel, "count") as stream:
        await stream.send_message(Int64Value(value=3000), end=True)
        assert [answer.value async for answer in stream] == list(range(3000))


async def test_both_sides_stream_at_once(channel: Any) -> None:
    async with call(channel, "chat") as stream, trio.open_nursery() as nursery:
        await stream.send_request()

        async def talk() -> None:
            for number in range(300):
                await stream.send_message(StringValue(value=str(number) * 1000))
            await stream.end()

        nursery.start_soon(talk)
        answers = [answer.value async for answer in stream]
        assert answers == [str(number) * 1000 for number in range(300)]


async def test_status_text_and_details_arrive(channel: Any) -> None:
    error = await refused(ask(channel, "refuse", StringValue(value="no jöb %")))
    assert (error.status, error.message) == (Status.NOT_FOUND, "no jöb %")
    assert error.details == [ResourceInfo(resource_type="job", resource_name="ä")]


async def test_unknown_method_is_unimplemented(channel: Any) -> None:
    assert (await refused(ask(channel, "missing", StringValue()))).status is Status.UNIMPLEMENTED


async def test_error_after_answers_is_raised_after_them(channel: Any) -> None:
    async with call(channel, "crash_late") as stream:
        await stream.send_message(StringValue(value="x"), end=True)
        assert await stream.recv_message() is not None
        error = await refused(stream.recv_message())
        assert error.status in {Status.ABORTED, Status.INTERNAL}


async def test_refused_upload_fails_with_its_status(channel: Any) -> None:
    """Not with that of the reset that follows it."""

    async def upload() -> None:
        async with call(channel, "refuse_upload") as stream:
            for _ in range(200):
                await stream.send_message(BytesValue(value=bytes(60_000)))
            await stream.end()
            await stream.recv_message()

    for _ in range(10):
        error = await refused(upload())
        assert (error.status, error.message) == (Status.FAILED_PRECONDITION, "not now")


async def test_metadata_arrives(channel: Any, peer: Any) -> None:
    await ask(channel, "echo", StringValue(), metadata={"colour": "blue", "raw-bin": b"\x00\xff"})
    [metadata] = peer[1].metadata
    assert (metadata["colour"], metadata["raw-bin"]) == ("blue", b"\x00\xff")


async def test_token_arrives(peer: Any) -> None:
    async with open_channel(f"localhost:{peer[0]}", token="swordfish") as channel:
        await ask(channel, "echo", StringValue())
    assert peer[1].metadata[0]["authorization"] == "Bearer swordfish"


async def test_deadline_ends_the_call_on_both_sides(channel: Any, peer: Any) -> None:
    """The client sees DEADLINE_EXCEEDED in time; the server is told."""
    await ask(channel, "echo", StringValue())
    with trio.fail_after(5.0):
        error = await refused(ask(channel, "hang", StringValue(), timeout=0.5))
    assert error.status is Status.DEADLINE_EXCEEDED
    await eventually(lambda: was_canceled(peer), within=5.0)


async def test_left_scope_resets_the_stream(channel: Any, peer: Any) -> None:
    """The server's handler does not go on for nobody."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, channel, "hang", StringValue())
        await eventually(lambda: "hang" in peer[1].begun)
        nursery.cancel_scope.cancel()
    await eventually(lambda: was_canceled(peer), within=5.0)
    assert (await ask(channel, "echo", StringValue(value="x"))).value == "x"


async def test_left_stream_is_reset(channel: Any, peer: Any) -> None:
    """A stream without an end ends when nobody listens any more."""
    with pytest.raises(LookupError):  # noqa: PT012
        async with call(channel, "endless") as stream:
            await stream.send_message(StringValue(value="x" * 1000), end=True)
            for _ in range(100):
                await stream.recv_message()
            raise LookupError
    await eventually(lambda: was_canceled(peer), within=5.0)
    assert (await ask(channel, "echo", StringValue(value="x"))).value == "x"


async def test_500_calls_at_once(channel: Any) -> None:
    answers = {}

    async def one(number: int) -> None:
        answers[number] = (await ask(channel, "echo", StringValue(value=str(number)))).value

    async with trio.open_nursery() as nursery:
        for number in range(500):
            nursery.start_soon(one, number)
    assert answers == {number: str(number) for number in range(500)}


@pytest.mark.slow
async def test_abandoned_streams_leave_the_connection_whole(channel: Any) -> None:
    """Neither its window nor its places for streams leak."""
    for number in range(300):
        with suppress(LookupError):
            async with call(channel, "count") as stream:
                await stream.send_message(Int64Value(value=50), end=True)
                await stream.recv_message()
                if number % 2:
                    raise LookupError
    connection = channel._connection
    assert not connection.streams
    await ask(channel, "echo", StringValue(value="x"))
    inbound = connection.h2._inbound_flow_control_window_manager
    assert inbound.current_window_size + inbound._bytes_processed == connection.limits.connection_window


def was_canceled(peer: Any) -> bool:
    _, server = peer
    return bool({"hang", "endless"} & set(server.ended)) if isinstance(server, Methods) else server.canceled.is_set()
