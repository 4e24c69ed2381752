"""Opening what is to be imported from: read-only, and only if it is what it should be."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import make_conninfo

from promptpipe.importing import open_source
from promptpipe.importing.tables import MESSAGES, PARTICIPANTS, TABLES
from promptpipe.model.errors import SettingsError, StoreUnavailableError
from tests.support.first import ADA, DAY, EARLIER, imported
from tests.support.postgres import as_url

if TYPE_CHECKING:
    from pathlib import Path

    from promptpipe.importing.tables import Table
    from tests.support.database import Database
    from tests.support.first import FirstDatabase, FirstOnSqlite


async def all_rows(url: str, table: Table, limit: int) -> list[str | None]:
    """Return the keys of all rows, read in pages of *limit*."""
    found: list[str | None] = []
    async with open_source(url) as source:
        after = None
        while page := await source.page(table, after, limit):
            found += [placed.row[table.key] for placed in page]
            after = page[-1].position
    return found


@pytest.mark.parametrize("limit", [1, 2, 200])
async def test_pages_bring_every_row_once(old: FirstDatabase, limit: int) -> None:
    """However many rows a page has."""
    old.everyday()
    for table in TABLES:
        found = await all_rows(old.url, table, limit)
        assert len(found) == len(set(found)) == (6 if table is MESSAGES else 2)


async def test_messages_come_in_the_order_in_which_they_were_made(old: FirstDatabase) -> None:
    """Their ids are chance."""
    for number, name in enumerate(["c", "a", "b"]):
        old.message(name, "hello", created_at=f"{DAY} 10:00:0{number}")
    assert await all_rows(old.url, MESSAGES, 1) == ["c", "a", "b"]


async def test_source_is_seen_as_it_was_when_it_was_opened(old: FirstDatabase) -> None:
    """What is added meanwhile comes with the next import."""
    old.participant()
    async with open_source(old.url) as source:
        before = await source.page(PARTICIPANTS, None, 10)
        if old.url.startswith("postgresql"):  # a file that is read is locked
            old.participant("p_eve")
        assert await source.page(PARTICIPANTS, None, 10) == before
        assert await source.find(PARTICIPANTS, {"id": [ADA, "p_eve"]}) == [before[0].row]


async def test_file_that_was_written_to_is_another_source(old_file: FirstOnSqlite) -> None:
    """An interrupted import of it begins anew, and finds what is here."""
    async with open_source(old_file.url) as source:
        first = source.fingerprint
        assert source.fingerprint == first
    old_file.participant()
    async with open_source(str(old_file.path)) as source:
        assert source.fingerprint != first


async def test_what_is_in_the_write_ahead_log_is_read_too(old_file: FirstOnSqlite, db: Database) -> None:
    """An old service that was killed leaves it behind."""
    with closing(sqlite3.connect(old_file.path)) as killed:
        killed.execute("PRAGMA journal_mode = WAL")
        killed.execute(
            "INSERT INTO conversation_participants (id, phone_number, status, enrolled_at, created_at, updated_at)"
            " VALUES ('p_x', '16505559999', 'active', ?, ?, ?)",
            [EARLIER] * 3,
        )
        killed.commit()
        assert (await imported(old_file, db))["conversation_participants"].imported == 1


@pytest.mark.parametrize("url", ["", "sqlite:///", "oracle://x/y", "sqlite:///nowhere.db", "nowhere.db"])
async def test_what_cannot_be_opened_is_said(url: str) -> None:
    """As a mistake in the command's option."""
    with pytest.raises(SettingsError, match="--from: "):
        async with open_source(url):
            pass


async def test_other_databases_are_refused(tmp_path: Path, db: Database) -> None:
    """A file of something else, an empty one, and one of ours."""
    text = tmp_path / "text.db"
    text.write_text("no database at all, but long enough to be looked at as one, which takes a hundred bytes" * 9)
    empty = tmp_path / "empty.db"
    empty.touch()
    others = [(text, "is no SQLite database"), (empty, "is no database of the first PromptPipe")]
    if (tmp_path / "test.db").exists():
        others.append((tmp_path / "test.db", "is a database of this PromptPipe"))
    for path, reason in others:
        with pytest.raises(SettingsError, match=reason):
            async with open_source(str(path)):
                pass


async def test_server_that_is_not_there_is_said_without_secrets() -> None:
    """Another attempt may succeed."""
    with pytest.raises(StoreUnavailableError) as caught:
        async with open_source("postgresql://someone:secret@127.0.0.1:1/old"):
            pass
    assert "secret" not in str(caught.value)
    with pytest.raises(SettingsError, match="--from: the URL is none that PostgreSQL understands") as refused:
        async with open_source("postgresql://someone:secret@127.0.0.1:1/old?nonsense=1"):
            pass
    assert "secret" not in str(refused.value)


async def test_server_that_refuses_is_said(postgres_url: str) -> None:
    """A database that does not exist will not appear by waiting."""
    url = as_url(make_conninfo(postgres_url, dbname="nowhere"))
    with pytest.raises(SettingsError, match=r"--from: .*does not exist"):
        async with open_source(url):
            pass
