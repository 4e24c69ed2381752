"""Unary calls and streamed messages: our server against grpclib's on asyncio, with the same handler and codec.

    make bench-rpc

Each round runs both servers, one after the other, in processes of their own, under the same client (grpcio, which is
C and never the bottleneck). Figures are medians over the rounds; what counts is the ratio, for machines differ.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import grpc

from bench.figures import Figure, figure, parser, show, show_machine
from bench.machine import machine
from promptpipe.net import listen
from promptpipe.rpc.convert import struct
from promptpipe.rpc.pb.promptpipe import v1
from tests.support.service import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

SERVERS = ("promptpipe", "grpclib")
UNARY = "/promptpipe.v1.JobService/GetJob"
STREAM = "/promptpipe.v1.JobService/WatchJobs"
CONCURRENCY = 32
SECONDS = 3.0
STREAMED = 4000
STREAMS = 4


class Jobs(v1.JobServiceBase):
    """The handler that both serve: a job of usual size, made anew for each answer."""

    @staticmethod
    def job(id_: str) -> v1.Job:
        now = datetime(2026, 3, 1, 12, tzinfo=UTC)
        payload = struct({"sentAt": "2026-03-01T12:00:00Z", "attempt": 1})
        return v1.Job(id=id_, kind="noop", queue="default", status=v1.JobStatus.QUEUED, run_at=now, payload=payload)

    async def get_job(self, message: v1.GetJobRequest) -> v1.GetJobResponse:
        return v1.GetJobResponse(job=self.job(message.job_id))

    async def watch_jobs(self, message: v1.WatchJobsRequest) -> AsyncIterator[v1.WatchJobsResponse]:
        for n in range(int(message.kind or "0")):
            yield v1.WatchJobsResponse(job=self.job(str(n)))


def serve_promptpipe(port: int, ready: Callable[[], None]) -> None:
    import trio  # noqa: PLC0415  each server imports its own loop only

    from promptpipe.rpc.server import RpcServer  # noqa: PLC0415

    async def main() -> None:
        with listen("127.0.0.1", port, "bench") as listener:
            server = RpcServer([Jobs()], listener, grace=1.0)
            with trio.open_signal_receiver(signal.SIGTERM) as signals:
                async with trio.open_nursery() as nursery:
                    await nursery.start(server.run)
                    ready()
                    async for _ in signals:
                        break
                    nursery.cancel_scope.cancel()

    trio.run(main)


def serve_grpclib(port: int, ready: Callable[[], None]) -> None:
    import asyncio  # noqa: PLC0415, TID251  the peer's own loop

    from grpclib.server import Server  # noqa: PLC0415

    async def main() -> None:
        server = Server([Jobs()])
        await server.start("127.0.0.1", port)
        ready()
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()
        server.close()
        await server.wait_closed()

    asyncio.run(main())


def serve(name: str, port: int) -> None:
    """Serve until SIGTERM, and print the CPU seconds that it took, from when it was ready."""
    readings: list[float] = []

    def read() -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        readings.append(usage.ru_utime + usage.ru_stime)

    {"promptpipe": serve_promptpipe, "grpclib": serve_grpclib}[name](port, read)
    read()
    sys.stdout.write(json.dumps(readings[-1] - readings[0]))


def run(name: str, port: int, load: Callable[[grpc.Channel], int]) -> tuple[float, float]:
    """Return how many messages per second a server answered, and its CPU microseconds per message."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.rpc", "--serve", name, "--port", str(port)], stdout=subprocess.PIPE, text=True
    )
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=30)
            began = time.perf_counter()
            count = load(channel)
            seconds = time.perf_counter() - began
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    return count / seconds, json.loads(output) / count * 1e6


def unary(channel: grpc.Channel) -> int:
    call = channel.unary_unary(UNARY, request_serializer=bytes, response_deserializer=bytes)
    request = bytes(v1.GetJobRequest(job_id="01a2088f-a105-7168-becb-83d8b27586b3"))
    ends = time.perf_counter() + SECONDS

    def worker(_: int) -> int:
        count = 0
        while time.perf_counter() < ends:
            call(request, timeout=10)
            count += 1
        return count

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        return sum(pool.map(worker, range(CONCURRENCY)))


def streamed(channel: grpc.Channel) -> int:
    call = channel.unary_stream(STREAM, request_serializer=bytes, response_deserializer=bytes)
    request = bytes(v1.WatchJobsRequest(kind=str(STREAMED)))
    with ThreadPoolExecutor(STREAMS) as pool:
        return sum(pool.map(lambda _: sum(1 for _ in call(request, timeout=60)), range(STREAMS)))


def figures(rounds: int) -> Iterator[Figure]:
    """Yield what both servers do, and the ratios of the rounds."""
    for what, load, bar in (("unary calls", unary, 1.0), ("streamed messages", streamed, None)):
        done: dict[str, list[tuple[float, float]]] = {name: [] for name in SERVERS}
        for number in range(rounds):
            port = free_port()
            for name in SERVERS if number % 2 else SERVERS[::-1]:
                done[name].append(run(name, port, load))
        for name, measured in done.items():
            rates, costs = zip(*measured, strict=True)
            yield figure(rates, group="rpc", what=what, of=name, unit="/s")
            yield figure(costs, group="rpc", what=f"{what}: the server's CPU for each", of=name, unit="µs")
        pairs = list(zip(*done.values(), strict=True))
        new = partial(figure, group="rpc", of="ratio", unit="x")
        yield new([ours[0] / theirs[0] for ours, theirs in pairs], what=what, at_least=bar)
        yield new([ours[1] / theirs[1] for ours, theirs in pairs], what=f"{what}: the server's CPU for each")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int)
    options.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    options.add_argument("--port", type=int, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.serve:
        serve(chosen.serve, chosen.port)
        return
    show_machine(machine(None, ("trio", "h2", "grpclib")), as_json=chosen.json, quick=chosen.quick)
    show(figures(chosen.rounds or (1 if chosen.quick else 3)), as_json=chosen.json)


if __name__ == "__main__":
    main()
