"""Fixtures: PostgreSQL servers that tests share.

Each pytest process, so each worker of pytest-xdist, has a server of its own: nothing to coordinate, and a test that
kills one disturbs nobody. It costs half a second and 60 MB.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.postgres import Programs, open_server, server_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def postgres_folder() -> Iterator[Path]:
    """Give a folder for servers and their programs."""
    with server_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres_programs(postgres_folder: Path) -> Programs:
    """Give PostgreSQL's programs, for tests that need servers of their own."""
    return Programs.installed(postgres_folder)


@pytest.fixture(scope="session")
def local_url(postgres_programs: Programs, postgres_folder: Path) -> Iterator[str]:
    """Give a server that all tests share and whose processes they may freeze."""
    with open_server(postgres_programs, postgres_folder / "shared", durable=False) as server:
        yield server.url


@pytest.fixture(scope="session")
def postgres_url(request: pytest.FixtureRequest) -> str:
    """Give a server that all tests share: the one that PROMPTPIPE_TEST_POSTGRES_URL names, or one of our own."""
    url: str = os.environ.get("PROMPTPIPE_TEST_POSTGRES_URL") or request.getfixturevalue("local_url")
    return url
