"""Unary calls and streamed messages: our server against grpclib's on asyncio, with the same handler and codec.

    make bench-rpc

Each round runs both servers, one after the other, in processes of their own, under the same client (grpcio, which is
C and never the bottleneck). Figures are medians over the rounds; what counts is the ratio, for machines differ.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import grpc

from promptpipe.net import listen
from promptpipe.rpc.convert import struct
from promptpipe.rpc.pb.promptpipe import v1

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

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
        [sys.executable, __file__, "--serve", name, "--port", str(port)], stdout=subprocess.PIPE, text=True
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one line per measurement")
    parser.add_argument("--serve", choices=SERVERS)
    parser.add_argument("--port", type=int, default=50999)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.port)
        return
    for what, load in (("unary calls", unary), ("streamed messages", streamed)):
        figures: dict[str, list[tuple[float, float]]] = {name: [] for name in SERVERS}
        for number in range(options.rounds):
            for name in SERVERS if number % 2 else SERVERS[::-1]:
                figures[name].append(run(name, options.port, load))
        report(what, figures, as_json=options.json)


def report(what: str, figures: dict[str, list[tuple[float, float]]], *, as_json: bool) -> None:
    rates = {name: statistics.median(rate for rate, _ in rounds) for name, rounds in figures.items()}
    costs = {name: statistics.median(cost for _, cost in rounds) for name, rounds in figures.items()}
    ratio = {"rate": rates["promptpipe"] / rates["grpclib"], "cpu": costs["promptpipe"] / costs["grpclib"]}
    if as_json:
        line = {"what": what, "per_second": rates, "cpu_us": costs, "ratio": ratio, "cores": os.cpu_count()}
        print(json.dumps(line))
        return
    print(f"{what}:")
    for name in SERVERS:
        print(f"  {name:<12} {rates[name]:>9,.0f}/s   {costs[name]:>7,.0f} µs of CPU each")
    print(f"  ratio        {ratio['rate']:>9.2f}     {ratio['cpu']:>7.2f}")


if __name__ == "__main__":
    main()
