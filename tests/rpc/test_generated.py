"""Generated services on our server: their generators are closed, and their parser cannot be made to stumble."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from promptpipe.client import open_channel, v1
from promptpipe.rpc.pb.google.protobuf import Struct
from tests.support.eventually import eventually
from tests.support.http2 import data, message, open_peer
from tests.support.rpc import open_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

WATCH = "/promptpipe.v1.JobService/WatchJobs"
ENQUEUE = "/promptpipe.v1.JobService/EnqueueJob"
FRAME = 16_384


class Jobs(v1.JobServiceBase):
    """Its watchers hold something open."""

    def __init__(self) -> None:
        self.open = 0
        self.closed_within: list[bool] = []
        self.go_on = trio.Event()

    async def watch_jobs(self, message: v1.WatchJobsRequest) -> AsyncIterator[v1.WatchJobsResponse]:
        self.open += 1
        task = trio.lowlevel.current_task()
        try:
            yield v1.WatchJobsResponse(job=v1.Job(id="1"))
            if message.kind == "ends":
                return
            if message.kind == "fails":
                raise GRPCError(Status.ABORTED, "enough")
            if message.kind == "floods":
                while True:
                    yield v1.WatchJobsResponse(job=v1.Job(id="x" * 10_000))
            await self.go_on.wait()
        finally:
            self.open -= 1
            self.closed_within.append(trio.lowlevel.current_task() is task)

    async def enqueue_job(self, message: v1.EnqueueJobRequest) -> v1.EnqueueJobResponse:
        await trio.lowlevel.checkpoint()
        return v1.EnqueueJobResponse(job=v1.Job(kind=message.kind))


@pytest.mark.parametrize("kind", ["waits", "floods", "ends", "fails"])
async def test_generator_is_closed_within_its_call(kind: str) -> None:
    """By its own task, before the call is over, however it ends: `finally` releases what it holds."""
    jobs = Jobs()
    async with open_server(jobs) as (server, port):
        async with open_peer(port) as peer:
            await peer.greet()
            await peer.call(1, "", bytes(v1.WatchJobsRequest(kind=kind)), **{":path": WATCH})
            await eventually(lambda: jobs.open == 1 or bool(jobs.closed_within))
        await eventually(lambda: not server._calls)
        assert (jobs.open, jobs.closed_within) == (0, [True])


async def test_method_that_is_not_written_is_unimplemented() -> None:
    async with open_server(Jobs()) as (_, port), open_channel(f"127.0.0.1:{port}") as channel:
        jobs = v1.JobServiceStub(channel)
        with pytest.raises(GRPCError) as raised:
            await jobs.get_job(v1.GetJobRequest(job_id="x"))
        assert raised.value.status is Status.UNIMPLEMENTED


def nested(depth: int, size: int) -> bytes:
    """Return a request whose payload is a text of that size, within that many lists."""
    body = field(b"\x1a", bytes(size))  # Value.string_value
    for _ in range(depth):
        body = field(b"\x32", field(b"\x0a", body))  # Value.list_value, ListValue.values
    payload = bytes(v1.EnqueueJobRequest(payload=Struct()))[:1]
    return field(payload, field(b"\x0a", field(b"\x12", body)))


def field(tag: bytes, body: bytes) -> bytes:
    size, prefix = len(body), b""
    while size > 127:
        prefix += bytes([size & 127 | 128])
        size >>= 7
    return tag + prefix + bytes([size]) + body


@pytest.mark.parametrize(("depth", "size"), [(400, 200_000), (5000, 10)])
async def test_message_too_deep_is_an_invalid_argument(depth: int, size: int) -> None:
    """Soon, for reading keeps everybody waiting: the bound is ten times what it takes."""
    whole = message(nested(depth, size))
    async with open_server(Jobs()) as (_, port), open_peer(port) as peer:
        await peer.greet()
        await peer.send(peer.request(1, "", **{":path": ENQUEUE}))
        await peer.send(*(data(1, whole[start : start + FRAME]) for start in range(0, len(whole), FRAME)))
        began = trio.current_time()
        assert (await peer.answer(1))["grpc-status"] == str(Status.INVALID_ARGUMENT.value)
        assert trio.current_time() - began < 3.0
