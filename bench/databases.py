"""Databases for measurements: a file, and a server with PostgreSQL's own default settings, both durable."""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg

from tests.support.postgres import Programs, as_url, children, new_database, open_server, server_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULTS = {"shared_buffers": "128MB"}
"""What the tests' servers have otherwise."""


class Databases:
    """Makes empty databases. *server_process* is the server's first process, if it is our own."""

    def __init__(self, folder: Path, server_url: str, server_process: int | None) -> None:
        self.folder = folder
        self.server_url = server_url
        self._server_process = server_process

    def new(self, kind: str) -> str:
        """Return the URL of an empty database, as the setting takes it."""
        if kind == "sqlite":
            return f"sqlite:///{self.folder / uuid4().hex}.db"
        return as_url(new_database(self.server_url))

    def server_cpu(self) -> float | None:
        """Return the CPU seconds that the server has used with all its processes; None when it is not our own."""
        if self._server_process is None:
            return None
        # The first process is charged with those that have ended.
        ticks = sum(_ticks(self._server_process, fields=4))
        for child in children(self._server_process):
            try:
                ticks += sum(_ticks(child, fields=2))
            except FileNotFoundError:  # ended meanwhile
                continue
        return ticks / os.sysconf("SC_CLK_TCK")

    def wal(self) -> int:
        """Return how many bytes of WAL the server has ever written."""
        with psycopg.connect(self.server_url, autocommit=True) as connection:
            row = connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint").fetchone()
        return int(row[0])  # type: ignore[index]


def _ticks(process: int, *, fields: int) -> list[int]:
    """Return the first *fields* of: user and system time, and both of the children that have ended."""
    after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return [int(field) for field in after_name[11 : 11 + fields]]


def count(url: str, sql: str) -> int:
    """Return the number that a query finds."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file:
            return int(file.execute(sql).fetchone()[0])
    with psycopg.connect(url, autocommit=True) as connection:
        return int(connection.execute(sql).fetchone()[0])  # type: ignore[arg-type, index]


def execute(url: str, *statements: str) -> None:
    """Change a database behind the product's back, in one transaction."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file, file:
            for statement in statements:
                file.execute(statement)
        return
    with psycopg.connect(url) as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[arg-type]


@contextmanager
def open_databases(folder: Path, server_url: str | None = None) -> Iterator[Databases]:
    """Give what makes databases, on a server of its own unless one is named."""
    with ExitStack() as stack:
        process = None
        if server_url is None:
            place = stack.enter_context(server_folder())
            server = stack.enter_context(open_server(Programs.installed(place), place / "bench", settings=DEFAULTS))
            server_url = server.url
            process = server.process.pid if server.process is not None else None
        yield Databases(folder, server_url, process)
