"""The Trio driver against psycopg's own asyncio connections: the same statements, in turns, on the same server.

Each has a process of its own, whose CPU time is counted. A round runs a workload through one and then the other; the
figures are medians of the rounds' ratios. Run it with `make bench` or `python -m bench.postgres_driver [--json] [URL]`;
without a URL it starts a server, with `--json` it prints a line for each measurement instead of a table.
"""

from __future__ import annotations

import asyncio  # noqa: TID251  the peer
import multiprocessing
import statistics
import sys
import time
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import trio

from bench.figures import Figure, figure, parser, show, show_machine
from bench.machine import machine
from promptpipe.storage.postgres.driver import Connection
from tests.support.postgres import Programs, open_server, server_folder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from multiprocessing.connection import Connection as Pipe

    AnyConnection = psycopg.AsyncConnection[Any]
    Work = Callable[[AnyConnection, int], Awaitable[None]]
    Measure = Callable[[str, int], "Figures"]

ROUNDS = 9
QUICK_ROUNDS = 3
SECONDS = 0.3
CONNECTIONS = (1, 8)
SCHEMA = """
CREATE TABLE IF NOT EXISTS bench (id int PRIMARY KEY, n int NOT NULL, payload text NOT NULL);
INSERT INTO bench SELECT id, 0, repeat('x', 200) FROM generate_series(0, 999) AS id ON CONFLICT DO NOTHING;
"""
READ = "SELECT id, n, payload FROM bench WHERE id = %s"
LOCK = "SELECT n FROM bench WHERE id = %s FOR UPDATE"
CHANGE = "UPDATE bench SET n = n + 1 WHERE id = %s"


async def select(connection: AnyConnection, number: int) -> None:
    """Read one row by its key: 1 statement."""
    cursor = await connection.execute(READ, [number % 1000])
    await cursor.fetchone()


async def transaction(connection: AnyConnection, number: int) -> None:
    """Do a small transaction: 4 statements with BEGIN and COMMIT."""
    async with connection.transaction():
        cursor = await connection.execute(LOCK, [number % 1000])
        await cursor.fetchone()
        await connection.execute(CHANGE, [number % 1000])


async def pipeline(connection: AnyConnection, number: int) -> None:
    """Send 10 statements in a pipeline."""
    async with connection.pipeline():
        for offset in range(10):
            await connection.execute(READ, [(number + offset) % 1000])


async def store_transaction(connection: AnyConnection, number: int) -> None:
    """Do a transaction in a pipeline, as a store does: lock a row that is needed, change it without waiting, commit."""
    async with connection.pipeline(), connection.transaction():
        cursor = await connection.execute(LOCK, [number % 1000])
        await cursor.fetchone()
        for _ in range(3):
            await connection.execute(CHANGE, [number % 1000])


WORKLOADS: dict[str, tuple[Work, int]] = {
    "select": (select, 1),
    "transaction": (transaction, 4),
    "pipeline": (pipeline, 10),
    "store transaction": (store_transaction, 6),
}


class Figures(NamedTuple):
    """What one process did in one turn."""

    per_second: float
    """Statements."""

    cpu_micros: float
    """CPU time of the client for each statement."""


class Meter:
    """Counts what is done for a while, from when all connections are open."""

    def __init__(self) -> None:
        self.done = 0
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    async def repeat(self, connection: AnyConnection, work: Work, first: int) -> None:
        """Work on one connection until time is up."""
        number = first
        while time.perf_counter() < self._wall + SECONDS:
            await work(connection, number)
            number += 1
        self.done += number - first

    def figures(self, statements: int) -> Figures:
        done = self.done * statements
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        return Figures(done / wall, cpu / done * 1e6)


async def with_trio(url: str, workload: str, connections: int) -> Figures:
    work, statements = WORKLOADS[workload]
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(await Connection.connect(url, autocommit=True)) for _ in range(connections)
        ]
        meter = Meter()
        async with trio.open_nursery() as nursery:
            for number, connection in enumerate(opened):
                nursery.start_soon(meter.repeat, connection, work, number * 100)
        return meter.figures(statements)


async def with_asyncio(url: str, workload: str, connections: int) -> Figures:
    work, statements = WORKLOADS[workload]
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(await psycopg.AsyncConnection.connect(url, autocommit=True))
            for _ in range(connections)
        ]
        meter = Meter()
        await asyncio.gather(
            *(meter.repeat(connection, work, number * 100) for number, connection in enumerate(opened))
        )
        return meter.figures(statements)


def blocking(url: str) -> Figures:
    """Select without any event loop: nothing that waits for psycopg can be faster on one connection."""
    with psycopg.connect(url, autocommit=True) as connection:
        meter = Meter()
        until = time.perf_counter() + SECONDS
        while time.perf_counter() < until:
            connection.execute(READ, [meter.done % 1000]).fetchone()
            meter.done += 1
        return meter.figures(1)


def serve(way: str, url: str, pipe: Pipe) -> None:
    """Measure what is asked for until nothing more is."""
    for workload, connections in iter(pipe.recv, None):
        match way:
            case "trio":
                pipe.send(trio.run(with_trio, url, workload, connections))
            case "asyncio":
                pipe.send(asyncio.run(with_asyncio(url, workload, connections)))
            case _:
                pipe.send(blocking(url))


@contextmanager
def open_process(way: str, url: str) -> Iterator[Measure]:
    """Give a function that measures a workload in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(way, url, theirs))
    process.start()

    def measure(workload: str, connections: int) -> Figures:
        ours.send((workload, connections))
        figures: Figures = ours.recv()
        return figures

    yield measure
    ours.send(None)
    process.join()


class Comparison(NamedTuple):
    """The Trio driver against another way, medians of the rounds: `speed` and `cpu` those of the ratios."""

    workload: str
    connections: int
    peer: str
    peer_per_second: float
    per_second: float
    speed: float
    peer_cpu_micros: float
    cpu_micros: float
    cpu: float


def comparison(workload: str, connections: int, peer: str, measure: dict[str, Measure], turns: int) -> Comparison:
    """Measure a workload through the Trio driver and its *peer*, in turns that change places."""
    ways = (peer, "trio")
    rounds = []
    for number in range(turns):
        done = {way: measure[way](workload, connections) for way in (ways if number % 2 else ways[::-1])}
        rounds.append((done[peer], done["trio"]))

    def median(value: Callable[[Figures, Figures], float]) -> float:
        return statistics.median(value(theirs, ours) for theirs, ours in rounds)

    return Comparison(
        workload,
        connections,
        peer,
        median(lambda theirs, _: theirs.per_second),
        median(lambda _, ours: ours.per_second),
        median(lambda theirs, ours: ours.per_second / theirs.per_second),
        median(lambda theirs, _: theirs.cpu_micros),
        median(lambda _, ours: ours.cpu_micros),
        median(lambda theirs, ours: ours.cpu_micros / theirs.cpu_micros),
    )


def compare(url: str, turns: int) -> Iterator[Comparison]:
    """Yield each workload's comparison with asyncio, and that of the first with blocking psycopg."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SCHEMA)
    with ExitStack() as stack:
        measure = {way: stack.enter_context(open_process(way, url)) for way in ("trio", "asyncio", "blocking")}
        for workload in WORKLOADS:
            for connections in CONNECTIONS:
                yield comparison(workload, connections, "asyncio", measure, turns)
        yield comparison("select", 1, "blocking", measure, turns)


def report(url: str, turns: int) -> None:
    """Print a table."""
    versions = f"psycopg {psycopg.__version__} ({psycopg.pq.__impl__}), trio {trio.__version__}"
    print(f"{versions}, Python {sys.version.split()[0]}; per statement, medians of {turns} rounds")
    print(
        f"{'workload':<18}{'connections':>11}  {'peer':<8} {'peer/s':>7} {'Trio/s':>7} {'ratio':>5}"
        f" {'peer CPU µs':>12} {'Trio CPU µs':>12} {'ratio':>5}"
    )
    rows = []
    for row in compare(url, turns):
        rows.append(row)
        print(
            f"{row.workload:<18}{row.connections:>11}  {row.peer:<8} {row.peer_per_second:>7.0f} {row.per_second:>7.0f}"
            f" {row.speed:>5.2f} {row.peer_cpu_micros:>12.1f} {row.cpu_micros:>12.1f} {row.cpu:>5.2f}",
            flush=True,
        )
    speed = statistics.geometric_mean(row.speed for row in rows if row.peer == "asyncio")
    cpu = statistics.geometric_mean(row.cpu for row in rows if row.peer == "asyncio")
    print(f"geometric mean of the ratios to asyncio: {speed:.2f} of the statements per second, {cpu:.2f} of the CPU")


def figures(url: str, turns: int) -> Iterator[Figure]:
    """Yield the ratios."""
    for row in compare(url, turns):
        opened = "1 connection" if row.connections == 1 else f"{row.connections} connections"
        new = partial(figure, group="driver", of=f"Trio / {row.peer}", unit="x")
        yield new([row.speed], what=f"{row.workload}, {opened}: statements a second")
        yield new([row.cpu], what=f"{row.workload}, {opened}: CPU for each statement")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("url", nargs="?", help="a server; without, one is started")
    chosen = options.parse_args()
    turns = QUICK_ROUNDS if chosen.quick else ROUNDS
    with ExitStack() as stack:
        url = chosen.url
        if not url:
            folder = stack.enter_context(server_folder())
            url = stack.enter_context(open_server(Programs.installed(folder), folder / "bench", durable=False)).url
        if not chosen.json:
            report(url, turns)
            return
        show_machine(machine(url, ("trio",)), as_json=True, quick=chosen.quick)
        show(figures(url, turns), as_json=True)


if __name__ == "__main__":
    main()
