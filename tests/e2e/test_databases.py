"""Databases as an operator meets them on the command line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support.commands import run_to_end
from tests.support.postgres import as_url
from tests.support.service import Home

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

pytestmark = pytest.mark.slow


def run(home: Home, *arguments: str, url: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end on the database of *home*, or that at *url*."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PROMPTPIPE_")}
    return run_to_end(arguments, clean | {"PROMPTPIPE_DATABASE_URL": url or home.database_url}, home.folder)


def test_check_says_what_is_missing_and_exits_1(home: Home) -> None:
    """A deployment can ask before it starts anything; afterwards nothing is missing, and nothing was changed."""
    before = run(home, "migrate", "--check")
    assert (before.returncode, before.stdout.splitlines()[0]) == (1, "missing: 0001_initial.sql")
    assert run(home, "migrate", "--check").stdout == before.stdout
    done = run(home, "migrate")
    assert (done.returncode, done.stderr.count("migration applied")) == (0, len(before.stdout.splitlines()))
    after = run(home, "migrate", "--check")
    assert (after.returncode, after.stdout) == (0, "")


def test_newer_schema_stops_every_command(home: Home) -> None:
    """In one line, exit 1."""
    assert run(home, "migrate").returncode == 0
    home.change("UPDATE schema_migrations SET number = 9000, name = '9000_future.sql' WHERE number = 3")
    for command in (["migrate", "--check"], ["migrate"], ["serve"]):
        ended = run(home, *command)
        assert ended.returncode == 1
        assert "9000_future.sql: it belongs to a newer PromptPipe" in ended.stderr
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("wrong", ["dbname", "user"])
def test_wrong_database_or_user_ends_the_start_with_the_reason(postgres_url: str, tmp_path: Path, wrong: str) -> None:
    """Exit 2, in one line that names the setting; it is not tried again."""
    url = as_url(psycopg.conninfo.make_conninfo(postgres_url, **{wrong: "nobody_made_this", "password": "hush-hush"}))
    ended = run(Home.on_sqlite(tmp_path), "serve", url=url)
    assert ended.returncode == 2
    assert "promptpipe: PROMPTPIPE_DATABASE_URL: " in ended.stderr
    assert "does not exist" in ended.stderr
    assert "hush-hush" not in ended.stderr + ended.stdout


def test_password_in_the_url_is_not_shown(tmp_path: Path) -> None:
    """Wherever in it it stands."""
    url = "postgresql://ada:hush-hush@host/db?sslpassword=hush-hush"
    shown = run(Home.on_sqlite(tmp_path), "config", url=url).stdout
    assert "PROMPTPIPE_DATABASE_URL=postgresql://ada:********@host/db?sslpassword=********" in shown.splitlines()
