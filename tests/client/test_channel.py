"""The channel: it connects when it has to, and a connection that goes takes no more with it than it must."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import trio
import trio.testing
import trustme
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from hyperframe.frame import HeadersFrame, SettingsFrame, WindowUpdateFrame

from promptpipe.client import client_tls, open_channel, v1
from promptpipe.client.channel import LIMITS
from promptpipe.rpc.http2 import Limits
from promptpipe.rpc.server import ServerLimits, tls_context
from tests.client.asking import HELLO, OK, answer, ask, call, open_raw_server, refused
from tests.support.eventually import eventually
from tests.support.grpcio import open_grpcio_server
from tests.support.http2 import RawPeer, data, goaway, message, settings
from tests.support.rpc import Methods, open_server
from tests.support.service import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


def retired(channel: Any) -> bool:
    """Return whether the channel's connection takes no more calls."""
    lost: object = channel._connection.lost
    return lost is not None


# ---------------------------------------------------------------- servers that come and go


async def test_nobody_there_is_unavailable() -> None:
    """The text says where, and why."""
    target = f"127.0.0.1:{free_port()}"
    async with open_channel(target) as channel:
        error = await refused(ask(channel, "echo", HELLO))
    assert error.status is Status.UNAVAILABLE
    assert target in str(error.message)
    assert "refused" in str(error.message)


@pytest.mark.parametrize("target", ["", "localhost", "localhost:", "localhost:x", "localhost:99999", ":1"])
async def test_address_that_is_none_is_unavailable(target: str) -> None:
    async with open_channel(target) as channel:
        assert (await refused(ask(channel, "echo", HELLO))).status is Status.UNAVAILABLE


async def test_error_leaves_the_channel_as_it_is() -> None:
    """Not in a group, though there is a nursery in between."""
    with pytest.raises(GRPCError) as raised:
        async with open_channel(f"127.0.0.1:{free_port()}") as channel:
            await ask(channel, "echo", HELLO)
    assert raised.value.status is Status.UNAVAILABLE


async def test_server_that_dies_fails_its_calls() -> None:
    """As UNAVAILABLE, at once."""
    async with (
        open_grpcio_server() as peer,
        open_channel(f"localhost:{peer.port}") as channel,
        trio.open_nursery() as nursery,
    ):
        errors = []

        async def hang() -> None:
            errors.append((await refused(ask(channel, "hang", HELLO))).status)

        nursery.start_soon(hang)
        await eventually(lambda: peer.servicer.begun == ["hang"])
        await peer.stop(None)
        await eventually(lambda: errors == [Status.UNAVAILABLE], within=5.0)


async def test_channel_connects_again_after_a_loss() -> None:
    port = free_port()
    async with open_channel(f"localhost:{port}") as channel:
        for _ in range(3):
            async with open_grpcio_server(port=port):
                assert (await ask(channel, "echo", HELLO)) == HELLO
            await eventually(partial(retired, channel))
            assert (await refused(ask(channel, "echo", HELLO))).status is Status.UNAVAILABLE


async def test_server_that_says_goodbye_still_answers_what_it_has() -> None:
    """Grpcio's goodbye comes with a ping in its wake; the call at hand minds neither."""
    async with open_grpcio_server() as peer, open_channel(f"localhost:{peer.port}") as channel:
        answers = []

        async def wait() -> None:
            answers.append(await ask(channel, "wait", HELLO))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await eventually(lambda: peer.servicer.begun == ["wait"])
            nursery.start_soon(peer.stop, 20)
            await eventually(partial(retired, channel))
            peer.servicer.go_on.set()
        assert answers == [HELLO]


async def test_large_answer_after_a_goodbye_arrives_whole() -> None:
    """The server is still told that it may send more."""
    body = message(BytesValue(value=bytes(1_000_000)).SerializeToString()) * 20

    async def serve(peer: RawPeer) -> None:
        await peer.welcome()
        await peer.wait_for(HeadersFrame)
        await peer.send(goaway(1), peer.head(1, OK))
        rooms = {0: LIMITS.connection_window, 1: LIMITS.stream_window}
        for start in range(0, len(body), 16_384):
            while min(rooms.values()) < 16_384:
                frame = await peer.wait_for(WindowUpdateFrame)
                rooms[frame.stream_id] += frame.window_increment
            await peer.send(data(1, body[start : start + 16_384]))
            rooms = {stream: room - 16_384 for stream, room in rooms.items()}
        await peer.send(peer.head(1, [("grpc-status", "0")], "END_STREAM"))

    async with (
        open_raw_server(serve) as channel,
        channel.request("/x", Cardinality.UNARY_STREAM, StringValue, BytesValue) as stream,
    ):
        await stream.send_message(HELLO, end=True)
        with trio.fail_after(10):
            assert [len(answer.value) async for answer in stream] == [1_000_000] * 20


async def test_goodbye_does_not_fail_later_calls() -> None:
    """They go over a new connection."""
    connections = []

    async def serve(peer: RawPeer) -> None:
        connections.append(peer)
        await peer.welcome()
        await peer.wait_for(HeadersFrame)
        await peer.send(goaway(1), *answer(peer, 1))
        await peer.wait_closed()

    async with open_raw_server(serve) as channel:
        for _ in range(5):
            assert await ask(channel, "echo", HELLO) == HELLO
    assert len(connections) == 5


async def test_call_that_the_server_did_not_get_to_is_unavailable() -> None:
    """Its number is above the last one that the goodbye names: it may be made again."""

    async def serve(peer: RawPeer) -> None:
        await peer.welcome()
        await peer.wait_for(HeadersFrame)
        await peer.send(goaway(0))
        await peer.wait_closed()

    async with open_raw_server(serve) as channel:
        assert (await refused(ask(channel, "echo", HELLO))).status is Status.UNAVAILABLE


@pytest.mark.parametrize("places", [0, 100])
async def test_server_that_only_says_goodbye_is_unavailable(places: int) -> None:
    """It is not asked for ever, whether it says so at once or to those that wait for a place."""

    async def serve(peer: RawPeer) -> None:
        await peer.welcome(MAX_CONCURRENT_STREAMS=places)
        await peer.wait_for(SettingsFrame, 0, *([] if places else ["ACK"]))
        await peer.send(goaway(0))
        await peer.wait_closed()

    async with open_raw_server(serve) as channel:
        with trio.fail_after(5):
            assert (await refused(ask(channel, "echo", HELLO))).status is Status.UNAVAILABLE


async def test_connection_that_has_used_up_its_numbers_is_replaced() -> None:
    """After a billion calls."""
    async with open_grpcio_server() as peer, open_channel(f"localhost:{peer.port}") as channel:
        untyped: Any = channel
        assert await ask(channel, "echo", HELLO) == HELLO
        untyped._connection.h2.highest_outbound_stream_id = 2**31 - 1
        assert await ask(channel, "echo", HELLO) == HELLO
        assert untyped._connection.h2.highest_outbound_stream_id == 1


# ---------------------------------------------------------------- more calls than the server takes at once


async def test_calls_wait_for_a_place() -> None:
    """A server that takes two at a time, or ends the connection, gets two at a time; all are answered."""
    limits = ServerLimits(each=Limits(streams=2))
    async with open_server(Methods(), limits=limits) as (_, port), open_channel(f"localhost:{port}") as channel:
        answers = []

        async def one(number: int) -> None:
            answers.append((await ask(channel, "echo", StringValue(value=str(number)))).value)

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(one, number)
        assert sorted(answers, key=int) == [str(number) for number in range(100)]


async def test_canceled_wait_for_a_place_takes_none() -> None:
    """Whoever gave up waiting does not keep others from it."""
    methods = Methods()

    async def serve(peer: RawPeer) -> None:
        await peer.welcome(MAX_CONCURRENT_STREAMS=1)
        await peer.wait_for(HeadersFrame)
        await gave_up.wait()
        await peer.send(*answer(peer, 1))
        await peer.wait_for(HeadersFrame, 3)
        await peer.send(*answer(peer, 3))
        await peer.wait_closed()

    gave_up = trio.Event()
    async with open_raw_server(serve) as channel, trio.open_nursery() as nursery:
        nursery.start_soon(ask, channel, "echo", HELLO)
        await eventually(lambda: channel._connection is not None and len(channel._connection.streams) == 1)
        with trio.move_on_after(0.1):
            async with trio.open_nursery() as impatient:
                impatient.start_soon(ask, channel, "echo", HELLO)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(ask, channel, "echo", HELLO)
        gave_up.set()
        with trio.fail_after(5):
            await eventually(lambda: channel._connection.h2.highest_outbound_stream_id == 3)
    assert methods.begun == []


async def test_server_may_take_more_later() -> None:
    """A setting that makes room lets waiting calls go on."""

    async def serve(peer: RawPeer) -> None:
        await peer.welcome(MAX_CONCURRENT_STREAMS=0)
        await trio.sleep(0.05)
        await peer.send(settings(MAX_CONCURRENT_STREAMS=10))
        await peer.wait_for(HeadersFrame)
        await peer.send(*answer(peer, 1))
        await peer.wait_closed()

    async with open_raw_server(serve) as channel:
        with trio.fail_after(5):
            assert await ask(channel, "echo", HELLO) == HELLO


# ---------------------------------------------------------------- TLS, and generated stubs


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


async def test_tls_on_both_sides(authority: trustme.CA, tmp_path: Path) -> None:
    """Grpcio's server asks for the client's certificate; without one, or for another name, there is no connection."""
    files = {name: str(tmp_path / name) for name in ("ca", "client", "key")}
    shown, server = authority.issue_cert("client"), authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(files["ca"])
    shown.cert_chain_pems[0].write_to_path(files["client"])
    shown.private_key_pem.write_to_path(files["key"])
    pair = (server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())
    credentials = grpc.ssl_server_credentials([pair], authority.cert_pem.bytes(), require_client_auth=True)
    async with open_grpcio_server(credentials=credentials) as peer:
        known = client_tls(files["ca"], files["client"], files["key"])
        async with open_channel(f"localhost:{peer.port}", tls=known) as channel:
            assert await ask(channel, "echo", HELLO) == HELLO
            assert len((await ask(channel, "big", Int64Value(value=2_000_000))).value) == 2_000_000
        for target, tls in [("localhost", client_tls(files["ca"])), ("127.0.0.1", known), ("localhost", client_tls())]:
            async with open_channel(f"{target}:{peer.port}", tls=tls) as channel:
                assert (await refused(ask(channel, "echo", HELLO))).status is Status.UNAVAILABLE


async def test_our_client_and_our_server_trust_each_other(authority: trustme.CA, tmp_path: Path) -> None:
    server = authority.issue_cert("localhost")
    names = [str(tmp_path / name) for name in ("ca", "server", "key")]
    authority.cert_pem.write_to_path(names[0])
    server.cert_chain_pems[0].write_to_path(names[1])
    server.private_key_pem.write_to_path(names[2])
    async with (
        open_server(Methods(), tls=tls_context(names[1], names[2])) as (_, port),
        open_channel(f"localhost:{port}", tls=client_tls(names[0])) as channel,
    ):
        assert await ask(channel, "echo", HELLO) == HELLO


class Jobs(v1.JobServiceBase):
    async def get_job(self, message: v1.GetJobRequest) -> v1.GetJobResponse:
        await trio.lowlevel.checkpoint()
        return v1.GetJobResponse(job=v1.Job(id=message.job_id))

    async def watch_jobs(self, message: v1.WatchJobsRequest) -> AsyncIterator[v1.WatchJobsResponse]:
        for number in range(3):
            yield v1.WatchJobsResponse(job=v1.Job(id=str(number)))
        raise GRPCError(Status.ABORTED, "enough")


async def test_generated_stubs_work() -> None:
    async with open_server(Jobs()) as (_, port), open_channel(f"localhost:{port}") as channel:
        jobs = v1.JobServiceStub(channel)
        answered = await jobs.get_job(v1.GetJobRequest(job_id="7"), timeout=5)
        assert answered.job is not None
        assert answered.job.id == "7"
        seen: list[object] = []
        with pytest.raises(GRPCError, match="enough"):
            await _collect(jobs.watch_jobs(v1.WatchJobsRequest()), seen)
        assert seen == [v1.WatchJobsResponse(job=v1.Job(id=str(number))) for number in range(3)]


async def _collect(events: AsyncIterator[object], seen: list[object]) -> None:
    async for event in events:
        seen.append(event)  # noqa: PERF401  what came before the error counts


async def test_call_is_entered_before_it_is_used() -> None:
    async with open_channel("localhost:1") as channel:
        with pytest.raises(RuntimeError, match="has not begun"):
            await call(channel, "echo").recv_message()
