"""Stopping: calls at hand are answered, all others learn where they stand, and the end comes in time."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import pytest
import trio
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame, RstStreamFrame

from promptpipe.net import listen
from promptpipe.rpc.http2.connection import MAX_STREAM_ID
from promptpipe.rpc.server import FAREWELL_SECONDS, STREAM_GRACE, RpcServer
from tests.support.eventually import eventually
from tests.support.http2 import data, message, open_peer, window
from tests.support.rpc import Methods, failure, open_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ECHO = StringValue(value="hello").SerializeToString()
UNAVAILABLE = "14"


@asynccontextmanager
async def ends_within(seconds: float, methods: Methods, *, grace: float) -> AsyncIterator[tuple[RpcServer, int]]:
    """Give a server that the body stops; fail when it does not end within *seconds* after the body."""
    with listen("127.0.0.1", 0, "test") as listener:
        server = RpcServer([methods], listener, grace=grace)
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            yield server, listener.getsockname()[1]
            nursery.cancel_scope.deadline = trio.current_time() + seconds
        assert not nursery.cancel_scope.cancelled_caught


async def test_call_at_hand_is_answered() -> None:
    """Its client sees OK and the answer, though the server has begun to stop."""
    methods = Methods()
    async with ends_within(1.0, methods, grace=20.0) as (server, port), open_client(port) as client:
        call = client.begin("wait", StringValue(value="patience"))
        await eventually(lambda: methods.begun == ["wait"])
        server.stop()
        methods.go_on.set()
        assert (await trio.to_thread.run_sync(call.result)).value == "patience"


async def test_large_answer_at_hand_arrives_whole() -> None:
    methods = Methods()
    async with ends_within(5.0, methods, grace=20.0) as (server, port), open_client(port) as client:
        call = client.begin_download("count", Int64Value(value=5000), Int64Value)
        first = await trio.to_thread.run_sync(next, call)
        server.stop()
        rest = await trio.to_thread.run_sync(list, call)
        assert [answer.value for answer in [first, *rest]] == list(range(5000))


async def test_stopped_server_takes_no_connection() -> None:
    methods = Methods()
    async with ends_within(1.0, methods, grace=20.0) as (server, port), open_client(port) as client:
        call = client.begin("wait")
        await eventually(lambda: methods.begun == ["wait"])
        server.stop()

        async def refused() -> bool:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                return True
            await stream.aclose()
            return False

        await eventually(refused)
        methods.go_on.set()
        await trio.to_thread.run_sync(call.result)


async def test_goodbye_has_two_phases() -> None:
    """First that no more calls are wanted, then which was the last: a call on its way is not lost between."""
    methods = Methods()
    async with ends_within(1.0, methods, grace=20.0) as (server, port), open_peer(port) as peer:
        await peer.greet()
        await peer.call(1, "wait", ECHO)
        await eventually(lambda: methods.begun == ["wait"])
        server.stop()
        notice = await peer.wait_for(GoAwayFrame)
        assert (notice.error_code, notice.last_stream_id) == (0, MAX_STREAM_ID)
        await peer.call(3, "echo", ECHO)
        assert (await peer.answer(3))["grpc-status"] == UNAVAILABLE
        methods.go_on.set()
        assert (await peer.answer(1))["grpc-status"] == "0"
        assert peer.bodies[1] == message(ECHO)
        last = await peer.wait_for(GoAwayFrame)
        assert (last.error_code, last.last_stream_id) == (0, 3)
    assert methods.begun == ["wait"]


@pytest.mark.slow
async def test_stream_without_an_end_ends_soon() -> None:
    """As UNAVAILABLE, long before the grace is over: it has no end to wait for."""
    methods = Methods()
    async with ends_within(STREAM_GRACE + 2.0, methods, grace=60.0) as (server, port), open_client(port) as client:
        call = client.begin_download("endless", StringValue(value="x"))
        await trio.to_thread.run_sync(next, call)
        server.stop()
        error = await failure(trio.to_thread.run_sync(list, call))
        assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "the service is draining")


async def test_call_that_outlasts_the_grace_is_unavailable() -> None:
    methods = Methods()
    async with ends_within(2.0, methods, grace=1.0) as (server, port), open_client(port) as client:
        call = client.begin("hang")
        await eventually(lambda: methods.begun == ["hang"])
        server.stop()
        error = await failure(trio.to_thread.run_sync(call.result))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert methods.canceled == ["hang"]


async def test_grace_of_nothing_still_tells_everybody() -> None:
    methods = Methods()
    async with ends_within(FAREWELL_SECONDS + 1.0, methods, grace=0.0) as (server, port), open_peer(port) as peer:
        await peer.greet()
        await peer.call(1, "hang", ECHO)
        await eventually(lambda: methods.begun == ["hang"])
        server.stop()
        frames = await peer.wait_closed()
        assert peer.headers[1]["grpc-status"] == UNAVAILABLE
        assert [frame for frame in frames if isinstance(frame, GoAwayFrame)]


async def test_idle_clients_do_not_hold_up_the_end() -> None:
    """Neither one that hangs up when told nor one that does not, nor one that has not said a word."""
    methods = Methods()
    async with (
        ends_within(FAREWELL_SECONDS + 1.0, methods, grace=60.0) as (server, port),
        open_client(port) as client,
        open_peer(port) as idle,
        open_peer(port),
    ):
        await client.unary("echo")
        await idle.greet()
        await idle.call(1, "echo")
        await idle.answer(1)
        server.stop()
        await eventually(lambda: not server._connections, within=FAREWELL_SECONDS + 1.0)


async def test_polite_client_ends_it_at_once() -> None:
    """Who hangs up on the goodbye is not waited for."""
    methods = Methods()
    async with ends_within(FAREWELL_SECONDS / 2, methods, grace=60.0) as (server, port), open_client(port) as client:
        await client.unary("echo")
        server.stop()


@pytest.mark.slow
async def test_client_that_does_not_read_does_not_hold_up_the_end() -> None:
    """Its answers are lost when the grace is over."""
    methods = Methods()
    async with ends_within(2.0, methods, grace=1.0) as (server, port), open_peer(port) as peer:
        await peer.greet(INITIAL_WINDOW_SIZE=1 << 30)
        await peer.send(window(0, 1 << 30))
        await peer.call(1, "big", Int64Value(value=100_000_000).SerializeToString())
        await eventually(lambda: methods.begun == ["big"])
        server.stop()
    assert methods.ended == ["big"]


async def test_call_refused_at_the_end_takes_nothing_from_the_others() -> None:
    """What came of it is given back to the connection's window."""
    methods = Methods()
    async with ends_within(1.0, methods, grace=0.0) as (server, port), open_peer(port) as peer:
        await peer.greet()
        await peer.call(1, "wait", ECHO)
        await eventually(lambda: methods.begun == ["wait"])
        [connection] = server._connections
        connection.go_away(final=True)
        await peer.send(peer.request(3, "echo"), data(3, bytes(500)))
        assert (await peer.wait_for(RstStreamFrame, 3)).error_code == ErrorCodes.REFUSED_STREAM
        inbound = connection.h2._inbound_flow_control_window_manager
        assert inbound.current_window_size + inbound._bytes_processed == connection.limits.connection_window
        methods.go_on.set()
        assert (await peer.answer(1))["grpc-status"] == "0"
        server.stop()
    assert methods.begun == ["wait"]


@pytest.mark.parametrize("name", ["hang", "endless", "hang_up", "join"])
async def test_cancellation_from_outside_leaves_nothing(name: str) -> None:
    """No task goes on, no socket stays open: clients see their connections end."""
    methods = Methods()
    with listen("127.0.0.1", 0, "test") as listener:
        async with open_peer(listener.getsockname()[1]) as peer:
            async with trio.open_nursery() as nursery:
                await nursery.start(RpcServer([methods], listener, grace=60.0).run)
                await peer.greet()
                await peer.call(1, name, ECHO)
                await eventually(lambda: methods.begun == [name])
                nursery.cancel_scope.cancel()
            assert methods.ended == [name]
            await peer.wait_closed(within=1.0)
