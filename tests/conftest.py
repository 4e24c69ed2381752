"""Fixtures that many tests share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from promptpipe.config import PREFIX
from tests.support.database import open_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.database import Database


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start from nothing: no variables of whoever runs the tests, no `.env` of theirs."""
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=["sqlite"])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """Give an empty store of each back end, on a clock that the test moves."""
    assert request.param == "sqlite"
    async with open_database(tmp_path / "test.db") as database:
        yield database
