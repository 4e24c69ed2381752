"""Fixtures that many tests share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psycopg
import pytest
import structlog
import trio

from promptpipe.config import PREFIX
from promptpipe.storage.postgres import PostgresConfig, migrate_postgres
from tests.support.database import DATABASE_CLOCK, EMPTY_EVERYTHING, PostgresTestDatabase, SqliteTestDatabase, running
from tests.support.postgres import as_url, drop_database, new_database
from tests.support.service import Home

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.support.database import Database

pytest_plugins = ["tests.support.servers"]

BACK_ENDS = os.environ.get("PROMPTPIPE_TEST_BACK_ENDS", "sqlite postgres").split()

# By default a traceback is drawn with all variables in it, which takes up to a second each.
PLAIN = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
structlog.configure(processors=[*structlog.get_config()["processors"][:-1], PLAIN])


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start from nothing: no variables of whoever runs the tests, no `.env` of theirs."""
    for name in os.environ:
        if name.startswith(PREFIX) and not name.startswith(f"{PREFIX}TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def shared_database(postgres_url: str) -> Iterator[str]:
    """Give a database with our schema, and a clock for tests."""
    url = new_database(postgres_url)
    trio.run(migrate_postgres, PostgresConfig(url=url))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(DATABASE_CLOCK)
    yield url
    drop_database(postgres_url, url)


@pytest.fixture
def fresh_database(shared_database: str) -> str:
    """Give that database with nothing in it: thirty times as quick as making one."""
    with psycopg.connect(shared_database) as connection:
        connection.execute(EMPTY_EVERYTHING)
    return shared_database


@pytest.fixture(params=BACK_ENDS)
def closed_db(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """Give an empty database of each kind that is not open yet, on a clock that the test moves."""
    if request.param == "sqlite":
        return SqliteTestDatabase(tmp_path / "test.db")
    return PostgresTestDatabase(request.getfixturevalue("fresh_database"))


@pytest.fixture
async def db(closed_db: Database) -> AsyncIterator[Database]:
    """Give an empty store of each back end."""
    async with running(closed_db):
        yield closed_db


@pytest.fixture(scope="session")
def lived_in(postgres_url: str) -> Iterator[str]:
    """Give a database with our schema."""
    url = new_database(postgres_url)
    trio.run(migrate_postgres, PostgresConfig(url=url))
    yield url
    drop_database(postgres_url, url)


@pytest.fixture(params=BACK_ENDS)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    """Give a folder, and an empty database of each kind, for the product as a user runs it.

    Slow tests have a database of their own in which nothing is yet, for they leave killed processes' sessions behind.
    """
    if request.param == "sqlite":
        yield Home.on_sqlite(tmp_path)
    elif request.node.get_closest_marker("slow"):
        server_url = request.getfixturevalue("postgres_url")
        url = new_database(server_url)
        yield Home(tmp_path, as_url(url))
        drop_database(server_url, url)
    else:
        url = request.getfixturevalue("lived_in")
        with psycopg.connect(url) as connection:
            connection.execute(EMPTY_EVERYTHING)
        yield Home(tmp_path, as_url(url))
