"""Databases to import from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support.first import SCHEMA, FirstOnPostgres, FirstOnSqlite
from tests.support.postgres import as_url, drop_database, new_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.first import FirstDatabase

EMPTIED = (
    "TRUNCATE receipts, responses, flow_states, conversation_participants, registered_hooks, jobs, outbox_messages,"
    " inbound_dedup RESTART IDENTITY"
)


@pytest.fixture(scope="session")
def first_on_server(postgres_url: str) -> Iterator[str]:
    """Give a database on the server with the tables of the first PromptPipe."""
    url = new_database(postgres_url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SCHEMA)
    yield as_url(url)
    drop_database(postgres_url, url)


@pytest.fixture
def old_file(tmp_path: Path) -> FirstOnSqlite:
    """Give an empty database of the first PromptPipe, a file."""
    return FirstOnSqlite(tmp_path / "state.db")


@pytest.fixture(params=["from_sqlite", "from_postgres"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> FirstDatabase:
    """Give an empty database of the first PromptPipe, of each kind."""
    if request.param == "from_sqlite":
        return FirstOnSqlite(tmp_path / "state.db")
    url: str = request.getfixturevalue("first_on_server")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(EMPTIED)
    return FirstOnPostgres(url)
