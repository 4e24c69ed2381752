"""Databases that look as if they had been used for years: one row of the product's own making, copied many times."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg

from bench.databases import count, execute

if TYPE_CHECKING:
    from collections.abc import Mapping

N = "{n}"
"""In an expression: the number of the copy, of 12 digits."""

ID = f"substr(t.id, 1, 24) || {N}"
"""Ids in the order of the copies."""


def copy(url: str, table: str, number: int, changed: Mapping[str, str], *, where: str = "TRUE") -> None:
    """Copy the one row of *table* that is *where* so many times; *changed* has expressions, by column, over row `t`.

    A cross join is what makes SQLite look for that row once.
    """
    if (rows := count(url, f"SELECT count(*) FROM {table} t WHERE {where}")) != 1:  # noqa: S608
        raise RuntimeError(f"{rows} rows of {table} to copy, not one")
    digits = "printf('%012d', i)" if url.startswith("sqlite") else "lpad(i::text, 12, '0')"
    values = [changed.get(column, f"t.{column}").replace(N, digits) for column in _columns(url, table)]
    execute(
        url,
        f"WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {number})"  # noqa: S608
        f" INSERT INTO {table} SELECT {', '.join(values)} FROM {table} t CROSS JOIN numbers WHERE {where}",
    )


def _columns(url: str, table: str) -> list[str]:
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file:
            return [row[1] for row in file.execute(f"PRAGMA table_info({table})")]
    with psycopg.connect(url) as connection:
        query = "SELECT column_name FROM information_schema.columns WHERE table_name = %s ORDER BY ordinal_position"
        return [row[0] for row in connection.execute(query, [table])]


def settle(url: str) -> None:
    """Do what the server would have done in the meantime: statistics, and its writes."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file:
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
