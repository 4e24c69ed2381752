"""`promptpipe import`: what it prints, how it ends, and what it leaves alone."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from promptpipe.storage.sqlite.database import _lock
from tests.support.commands import run_command
from tests.support.first import ADA

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.support.first import FirstOnSqlite
    from tests.support.service import Home


async def run_import(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PROMPTPIPE_DATABASE_URL": home.database_url}
    return await run_command(["import", *arguments], environment, home.folder)


async def test_everything_imported_ends_with_0(home: Home, old_file: FirstOnSqlite) -> None:
    """For people it is a table; the database is migrated first."""
    old_file.everyday()
    ended = await run_import(home, "--from", str(old_file.path))
    assert ended.returncode == 0, ended.stderr
    lines = [line.split() for line in ended.stdout.splitlines()]
    assert lines[0] == ["TABLE", "READ", "IMPORTED", "SKIPPED", "PROBLEMS"]
    assert lines[1] == ["conversation_participants", "2", "2", "0", "0"]
    assert len(lines) == 9
    assert len(home.rows("SELECT * FROM conversation_participants")) == 2


async def test_what_could_not_be_imported_ends_with_1(home: Home, old_file: FirstOnSqlite) -> None:
    """It is named, with why; for programs as JSON, and the same when nothing is written."""
    old_file.everyday()
    old_file.change("UPDATE conversation_participants SET status = 'gone' WHERE id = ?", ADA)
    dry = await run_import(home, "--from", old_file.url, "--dry-run", "--json")
    wet = await run_import(home, "--from", old_file.url, "--json")
    assert (dry.returncode, wet.returncode) == (1, 1)
    told, done = json.loads(dry.stdout), json.loads(wet.stdout)
    assert (told.pop("dry_run"), done.pop("dry_run")) == (True, False)
    assert told == done
    reason = f"participant {ADA} cannot be read: status is none that there is"
    assert done["tables"][0] == {
        "table": "conversation_participants",
        "read": 2,
        "imported": 1,
        "skipped": 0,
        "problems": 1,
        "reasons": [{"row": ADA, "reason": reason}],
    }
    again = await run_import(home, "--from", old_file.url)
    assert f"conversation_participants  {ADA}" in again.stdout
    assert reason in again.stdout


async def test_dry_run_makes_no_database(tmp_path: Path, old_file: FirstOnSqlite) -> None:
    """Nor anything else."""
    old_file.everyday()
    before = sorted(tmp_path.iterdir())
    environment = {"PROMPTPIPE_DATABASE_URL": f"sqlite:///{tmp_path / 'new.db'}"}
    ended = await run_command(["import", "--from", old_file.url, "--dry-run"], environment, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert sorted(tmp_path.iterdir()) == before


async def test_nothing_to_import_from_ends_with_2(tmp_path: Path) -> None:
    """Before our database is touched."""
    environment = {"PROMPTPIPE_DATABASE_URL": f"sqlite:///{tmp_path / 'new.db'}"}
    ended = await run_command(["import", "--from", "nowhere.db"], environment, tmp_path)
    assert (ended.returncode, ended.stderr) == (2, "promptpipe: --from: there is no file nowhere.db\n")
    assert list(tmp_path.iterdir()) == []


async def test_service_does_not_start_in_the_middle_of_an_import(home: Home, old_file: FirstOnSqlite) -> None:
    """Until it is finished, or given up."""
    old_file.everyday()
    await run_import(home, "--from", old_file.url)
    home.change("UPDATE imports SET finished = ? WHERE name = 'responses'", False)
    environment = {"PROMPTPIPE_DATABASE_URL": home.database_url}
    ended = await run_command(["serve"], environment, home.folder)
    assert ended.returncode == 1
    assert f"the import from {old_file.path} was interrupted" in ended.stderr
    for given_up in ([], ["--give-up", "--from", "x"], ["--give-up", "--dry-run"]):
        assert (await run_import(home, *given_up)).returncode == 2
    assert (await run_import(home, "--give-up")).returncode == 0
    assert home.rows("SELECT * FROM imports") == []
    assert len(home.rows("SELECT * FROM conversation_participants")) == 2


async def test_refuses_while_another_process_has_the_file(tmp_path: Path, old_file: FirstOnSqlite) -> None:
    """A service at work on it, as a rule."""
    path = tmp_path / "new.db"
    environment = {"PROMPTPIPE_DATABASE_URL": f"sqlite:///{path}"}
    with ExitStack() as held:
        held.callback(os.close, _lock(path))
        ended = await run_command(["import", "--from", old_file.url], environment, tmp_path)
    assert ended.returncode == 1
    assert "is in use by another PromptPipe process" in ended.stderr
