"""The Trio driver against psycopg's own asyncio connections: the same statements, in turns, on the same server.

Each round runs every workload through both, each in a process of its own whose CPU time is counted; the figures are
medians of the rounds' ratios. Run it with `python -m bench.postgres_driver [postgresql://...]`; without a URL it starts
a server.
"""

from __future__ import annotations

import asyncio  # noqa: TID251  the peer
import multiprocessing
import statistics
import sys
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import trio

from promptpipe.storage.postgres.driver import Connection
from tests.support.postgres import Programs, open_server, server_folder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Work = Callable[[psycopg.AsyncConnection[Any], int], Awaitable[None]]

ROUNDS = 11
SECONDS = 0.8
CONNECTIONS = (1, 8)
SCHEMA = """
CREATE TABLE IF NOT EXISTS bench (id int PRIMARY KEY, n int NOT NULL, payload text NOT NULL);
INSERT INTO bench SELECT id, 0, repeat('x', 200) FROM generate_series(0, 999) AS id ON CONFLICT DO NOTHING;
"""


async def select(connection: psycopg.AsyncConnection[Any], number: int) -> None:
    """Read one row by its key: 1 statement."""
    cursor = await connection.execute("SELECT id, n, payload FROM bench WHERE id = %s", [number % 1000])
    await cursor.fetchone()


async def transaction(connection: psycopg.AsyncConnection[Any], number: int) -> None:
    """Do a small transaction: 4 statements."""
    async with connection.transaction():
        cursor = await connection.execute("SELECT n FROM bench WHERE id = %s FOR UPDATE", [number % 1000])
        await cursor.fetchone()
        await connection.execute("UPDATE bench SET n = n + 1 WHERE id = %s", [number % 1000])


async def pipeline(connection: psycopg.AsyncConnection[Any], number: int) -> None:
    """Send 10 statements in a pipeline."""
    async with connection.pipeline():
        for offset in range(10):
            await connection.execute("SELECT id, n, payload FROM bench WHERE id = %s", [(number + offset) % 1000])


WORKLOADS: dict[str, tuple[Work, int]] = {
    "select": (select, 1),
    "transaction": (transaction, 4),
    "pipeline": (pipeline, 10),
}


async def repeat(connection: psycopg.AsyncConnection[Any], work: Work, first: int) -> int:
    """Work for a while on one connection; return how often it was done."""
    done = 0
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        await work(connection, first + done)
        done += 1
    return done


async def with_trio(url: str, work: Work, connections: int) -> int:
    done = []

    async def one(first: int) -> None:
        async with await Connection.connect(url, autocommit=True) as connection:
            done.append(await repeat(connection, work, first))

    async with trio.open_nursery() as nursery:
        for number in range(connections):
            nursery.start_soon(one, number * 100)
    return sum(done)


async def with_asyncio(url: str, work: Work, connections: int) -> int:
    async def one(first: int) -> int:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            return await repeat(connection, work, first)

    return sum(await asyncio.gather(*(one(number * 100) for number in range(connections))))


def measure(way: str, url: str, workload: str, connections: int, answer: Any) -> None:
    """Run a workload, and send statements per second and CPU seconds per statement."""
    work, statements = WORKLOADS[workload]
    wall, cpu = time.perf_counter(), time.process_time()
    if way == "trio":
        done = trio.run(with_trio, url, work, connections)
    else:
        done = asyncio.run(with_asyncio(url, work, connections))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    answer.send((done * statements / wall, cpu / done / statements))


def measured(way: str, url: str, workload: str, connections: int) -> tuple[float, float]:
    """Measure in a fresh process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(way, url, workload, connections, sender))
    process.start()
    result: tuple[float, float] = receiver.recv()
    process.join()
    return result


def compare(url: str) -> None:
    """Print the table."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SCHEMA)
    print(f"{'workload':<12} {'conns':>5} {'asyncio/s':>10} {'trio/s':>10} {'ratio':>6} {'CPU µs':>14} {'ratio':>6}")
    for workload in WORKLOADS:
        for connections in CONNECTIONS:
            run = partial(measured, url=url, workload=workload, connections=connections)
            rounds = [(run("asyncio"), run("trio")) for _ in range(ROUNDS)]
            per_second = [statistics.median(each[way][0] for each in rounds) for way in (0, 1)]
            micros = [statistics.median(each[way][1] for each in rounds) * 1e6 for way in (0, 1)]
            faster = statistics.median(ours[0] / peer[0] for peer, ours in rounds)
            leaner = statistics.median(ours[1] / peer[1] for peer, ours in rounds)
            print(
                f"{workload:<12} {connections:>5} {per_second[0]:>10.0f} {per_second[1]:>10.0f} {faster:>6.2f} "
                f"{micros[0]:>6.1f} {micros[1]:>7.1f} {leaner:>6.2f}",
                flush=True,
            )


def main() -> None:
    with ExitStack() as stack:
        if sys.argv[1:]:
            url = sys.argv[1]
        else:
            folder = stack.enter_context(server_folder())
            url = stack.enter_context(open_server(Programs.installed(folder), folder / "bench", durable=False)).url
        print(
            f"psycopg {psycopg.__version__} ({psycopg.pq.__impl__}), trio {trio.__version__}, Python {sys.version[:6]}"
        )
        compare(url)


if __name__ == "__main__":
    main()
