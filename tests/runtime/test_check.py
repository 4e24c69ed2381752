"""`promptpipe check`: what recovery would repair, and nothing changed."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import run_command

if TYPE_CHECKING:
    import subprocess

    from tests.support.service import Home

pytestmark = pytest.mark.slow


async def run(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end on the database of *home*."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PROMPTPIPE_")}
    return await run_command(arguments, clean | {"PROMPTPIPE_DATABASE_URL": home.database_url}, home.folder)


async def test_check_names_what_recovery_would_repair(home: Home) -> None:
    """And changes nothing: exit 0 when all is well, 1 when something is not, and 1 when it cannot tell."""
    ended = await run(home, "check")
    assert (ended.returncode, "promptpipe migrate" in ended.stderr) == (1, True)
    assert (await run(home, "migrate")).returncode == 0
    ended = await run(home, "check")
    assert (ended.returncode, ended.stdout) == (0, "nothing to repair\n")
    home.change(
        "INSERT INTO registered_hooks (participant_id, handler_type, flow_type, created_at)"
        " SELECT 'x', 'y', 'z', applied_at FROM schema_migrations WHERE number = 1"
    )
    for _ in range(2):
        ended = await run(home, "check")
        finding = "response handlers: x: a response handler (y) without a participant\n"
        assert (ended.returncode, ended.stdout) == (1, finding)
    [handlers] = [item for item in json.loads((await run(home, "check", "--json")).stdout) if item["restored"]]
    assert handlers["repairs"] == [["x", "a response handler (y) without a participant"]]
