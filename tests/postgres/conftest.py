"""Connections, servers of one's own, and an observer who does not use the driver."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import make_conninfo

from promptpipe.storage.postgres.driver import Connection
from tests.postgres.observer import Observer
from tests.support.postgres import Programs, Server, drop_database, new_database, open_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def database(postgres_url: str) -> Iterator[str]:
    """Give an empty database on the shared server."""
    url = new_database(postgres_url)
    yield url
    drop_database(postgres_url, url)


@pytest.fixture
def url(request: pytest.FixtureRequest, database: str) -> str:
    """Give the database, for connections that the observer tells from those of other tests."""
    return make_conninfo(database, application_name=request.node.name[:60])


@pytest.fixture
def observer(request: pytest.FixtureRequest, database: str) -> Iterator[Observer]:
    """Give somebody who looks on."""
    with Observer.open(database, request.node.name[:60]) as watching:
        yield watching


@pytest.fixture
def table(observer: Observer) -> Iterator[str]:
    """Give an empty table that others see too, of one column `id`."""
    observer.rows("CREATE TABLE canceled (id int)")
    yield "canceled"
    observer.rows("DROP TABLE canceled")


@pytest.fixture
async def connection(url: str) -> AsyncIterator[Connection]:
    """Give a connection in autocommit mode."""
    async with await Connection.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def nearby(local_url: str) -> AsyncIterator[Connection]:
    """Give a connection in autocommit mode to a server on this machine, whose process the test may freeze."""
    async with await Connection.connect(local_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def own_server(postgres_programs: Programs, tmp_path: Path, postgres_folder: Path) -> Iterator[Server]:
    """Give a server that the test may stop and kill."""
    with open_server(postgres_programs, postgres_folder / tmp_path.name, durable=False) as server:
        yield server


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Let SIGINT mean what it means in a terminal: whoever starts tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
