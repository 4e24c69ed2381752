"""Durable transactions on SQLite: the group-committing writer thread against one thread hop per statement.

Each transaction is what appending an event does: two statements. Run it with `python -m bench.sqlite_writer`.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from promptpipe.storage.sqlite.database import connect
from promptpipe.storage.sqlite.writer import ThreadWriter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TRANSACTIONS = 2000
TASKS = (1, 10, 100)
SCHEMA = """
CREATE TABLE lane (key INTEGER PRIMARY KEY, seq INTEGER NOT NULL);
CREATE TABLE event (key INTEGER NOT NULL, seq INTEGER NOT NULL, payload TEXT NOT NULL, PRIMARY KEY (key, seq));
"""
APPEND = "INSERT INTO lane VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET seq = seq + 1 RETURNING seq"
INSERT = "INSERT INTO event VALUES (?, ?, ?)"
PAYLOAD = "x" * 200


def append(key: int, connection: sqlite3.Connection) -> None:
    [(seq,)] = connection.execute(APPEND, (key,)).fetchall()
    connection.execute(INSERT, (key, seq, PAYLOAD))


async def by_group(path: Path, tasks: int) -> float:
    """Return the seconds that the transactions take through the writer thread."""
    writer = ThreadWriter(partial(connect, path))
    seconds = await timed(tasks, lambda key: writer.run(partial(append, key)))
    await writer.close()
    return seconds


async def by_hop(path: Path, tasks: int) -> float:
    """Return the seconds that they take with a hop to a thread for each statement, one transaction at a time."""
    connection = connect(path)
    lock = trio.Lock()

    async def hop(sql: str, *values: object) -> list[sqlite3.Row]:
        return await trio.to_thread.run_sync(lambda: connection.execute(sql, values).fetchall())

    async def transaction(key: int) -> None:
        async with lock:
            await hop("BEGIN IMMEDIATE")
            [row] = await hop(APPEND, key)
            await hop(INSERT, key, row["seq"], PAYLOAD)
            await hop("COMMIT")

    seconds = await timed(tasks, transaction)
    connection.close()
    return seconds


async def timed(tasks: int, transaction: Callable[[int], Awaitable[None]]) -> float:
    async def work(key: int) -> None:
        for _ in range(TRANSACTIONS // tasks):
            await transaction(key)

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for key in range(tasks):
            nursery.start_soon(work, key)
    return time.perf_counter() - began


def main() -> None:
    print(f"{'tasks':>6} {'group µs':>10} {'hop µs':>10} {'ratio':>7}")
    for tasks in TASKS:
        micros = []
        for way in (by_group, by_hop):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "bench.db"
                setup = sqlite3.connect(path)
                setup.executescript(SCHEMA)
                setup.close()
                micros.append(trio.run(way, path, tasks) / TRANSACTIONS * 1e6)
        group, hop = micros
        print(f"{tasks:>6} {group:>10.1f} {hop:>10.1f} {hop / group:>7.1f}")


if __name__ == "__main__":
    main()
