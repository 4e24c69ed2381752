"""The package of `docs/writing-a-flow.md`: its files as they stand there, installed, and at work as the page says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.support.eventually import eventually
from tests.support.script import say
from tests.support.service import Home, open_service

if TYPE_CHECKING:
    from promptpipe.simulator.meta_stand_in import MetaStandIn
    from tests.support.service import Service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "writing-a-flow.md").read_text()
GRACE = "+4917012345678"
EVERY = "8"
"""Seconds of a day of the diary: as long as it takes to kill the service before the first is over."""


def files() -> dict[str, str]:
    """Return the files on the page by their paths."""
    return dict(re.findall(r"^`(mood-diary/\S+)`\n\n```\w+\n(.*?\n)```$", PAGE, re.MULTILINE | re.DOTALL))


def commands() -> list[list[str]]:
    """Return the commands on the page, as a shell would split them."""
    lines = re.findall(r"^    ((?:\.venv/|PYTHONPATH=|pkill ).*)$", PAGE.replace("\\\n", " "), re.MULTILINE)
    return [shlex.split(line) for line in lines]


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """Give a folder that stands for the repository, and has its environment, with the package beside it."""
    for name, text in files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    folder = tmp_path / "promptpipe"
    folder.mkdir()
    (folder / ".venv").symlink_to(REPOSITORY / ".venv")
    return folder


async def run(words: list[str], folder: Path, **more: str) -> str:
    """Run a command in *folder*, without the network, and return what it prints; fail with what it says."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ended = await trio.to_thread.run_sync(
        partial(
            subprocess.run,
            words,
            cwd=folder,
            env={**environment, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **more},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    )
    assert ended.returncode == 0, (words, ended.stdout, ended.stderr)
    return str(ended.stdout)


async def run_here(words: list[str], service: Service) -> str:
    """Run a command of the page against *service*, about the one participant that there is, where it has an `ID`."""
    server = f"127.0.0.1:{service.grpc_port}"
    concrete = [word.replace("127.0.0.1:50051", server) for word in words]
    if any("ID" in word for word in words):
        [(person,)] = service.rows("SELECT id FROM conversation_participants")
        concrete = [re.sub(r"\bID\b", str(person), word) for word in concrete]
    return await run(concrete, service.folder, PROMPTPIPE_CLIENT__SERVER=server)


async def start(service: Service, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    """Start the service with the variables of a command of the page, but shorter days."""
    variables = dict(word.split("=") for word in words if "=" in word)
    monkeypatch.setenv("PYTHONPATH", variables.pop("PYTHONPATH"))
    service.settings |= {name.removeprefix("PROMPTPIPE_"): EVERY for name in variables}
    service.start()
    await service.wait_ready()


async def die_and_come_back(service: Service, stand_in: MetaStandIn) -> None:
    """Kill the service while the diary waits, start it again, and answer the question that it then asks."""
    phone = stand_in.world.phone(GRACE)
    question, thanks = "How do you feel today?", "Thank you, I have written that down."

    def heard(text: str) -> bool:
        return any(who == "service" and said.startswith(text) for who, said in phone.transcript())

    assert service.process is not None
    service.process.kill()
    await service.wait_ended()
    assert service.rows("SELECT kind, status FROM jobs") == [("mood_check_in", "queued")]
    assert not heard(question)
    service.start()
    await eventually(lambda: heard(question))
    say(stand_in, phone, "4")
    await eventually(lambda: heard(thanks))


async def lose_the_timer(service: Service) -> None:
    """Let the diary go on, take its job away behind the service's back, and see recovery bring it back."""
    promptpipe = ".venv/bin/promptpipe"
    await run_here([promptpipe, "flows", "move", "ID", "WAITING", "--flow", "mood_diary"], service)
    service.home.change("DELETE FROM jobs WHERE kind = 'mood_check_in'")
    await run_here([promptpipe, "recovery", "run"], service)
    await eventually(lambda: service.rows("SELECT kind FROM jobs WHERE kind = 'mood_check_in'") != [])


async def test_page_is_true(beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command, in its order, does what the text around it says; the timer outlives the service."""
    said: dict[str, str] = {}
    async with open_service(Home.on_sqlite(beside)) as (service, stand_in):
        for words in commands():
            match words:
                case [*_, "make", "run"]:
                    await start(service, monkeypatch, words)
                case ["pkill", *_]:
                    await die_and_come_back(service, stand_in)
                case _:
                    said[words[-1] if "grpcurl" in words[0] else " ".join(words[1:4])] = await run_here(words, service)
        assert "6 passed" in said["-m pytest ../mood-diary"]
        assert "extensions=['mood-diary 1.0']" in service.log()
        assert re.search(r"^mood_diary +mood_check_in *$", said["flows types"], re.MULTILINE)
        assert '"mood_check_in"' in said["promptpipe.v1.FlowService/ListFlowTypes"]
        assert '"mood": 4' in said["flows get ID"]
        assert "PAUSED" in said["flows move ID"]
        assert "mood_diary flow" in said["recovery run"]
        assert service.rows("SELECT kind FROM jobs WHERE kind = 'mood_check_in'") == []
        transcript = [text for _, text in stand_in.world.phone(GRACE).transcript()]
        assert transcript.count("Hello! I will ask you once a day how you feel, and keep your answers.") == 1
        await eventually(
            lambda: (
                {"Grace, close your eyes and take 4 slow breaths.", "The study ends in May."}
                <= {text for _, text in stand_in.world.phone(GRACE).transcript()}
            )
        )
        await lose_the_timer(service)
        assert await service.stop() == 0


async def test_line_that_an_operator_reads(beside: Path) -> None:
    """The page shows it as it is: one line, exit code 2, and no database."""
    [install] = [words for words in commands() if "pip" in words]
    await run(install, beside)
    environment = {"PYTHONPATH": "../extensions", "PROMPTPIPE_EXTENSION__MOOD_DIARY__EVERY": "0"}
    ended = await trio.to_thread.run_sync(
        partial(
            subprocess.run,
            [sys.executable, "-m", "promptpipe", "serve"],
            cwd=beside,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert f"    {ended.stderr}" in PAGE
    assert [path.name for path in beside.iterdir()] == [".venv"]
