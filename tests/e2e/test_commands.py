"""The command line: what an operator meets when something is wrong, and when it is right."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from promptpipe.storage.sqlite.migrations import known_migrations
from tests.support.eventually import eventually
from tests.support.script import INTAKE, OPENING
from tests.support.service import Home, Service, free_port, open_service

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]


def run(folder: Path, *arguments: str, stdin: str | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with these settings and no others."""
    service = Service(Home.on_sqlite(folder), free_port(), settings)
    return subprocess.run(
        [sys.executable, "-m", "promptpipe", *arguments],
        env=service.environment(),
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("HTTP_BIND", "nonsense"), ("IN_DOUBT_WAIT", "-1"), ("DATABASE_URL", "oracle://x"), ("CHANNEL", "whatsapp")],
)
def test_bad_setting_stops_the_start_naming_it(tmp_path: Path, name: str, value: str) -> None:
    """One line, exit 2, nothing touched."""
    ended = run(tmp_path, "serve", **{name: value})
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    expected = "PROMPTPIPE_WHATSAPP__" if name == "CHANNEL" else f"PROMPTPIPE_{name}: "
    assert ended.stderr.startswith(f"promptpipe: {expected}")
    assert list(tmp_path.iterdir()) == []


def test_unknown_setting_is_pointed_out(tmp_path: Path) -> None:
    """With the name that was probably meant."""
    ended = run(tmp_path, "migrate", HTP_BIND="x")
    assert ended.returncode == 0
    assert "PROMPTPIPE_HTP_BIND" in ended.stderr
    assert "did_you_mean=PROMPTPIPE_HTTP_BIND" in ended.stderr


def test_migrate_makes_the_database(tmp_path: Path) -> None:
    """And does nothing the second time."""
    assert [run(tmp_path, "migrate").returncode for _ in range(2)] == [0, 0]
    connection = sqlite3.connect(tmp_path / "promptpipe.db")
    numbers = [number for (number,) in connection.execute("SELECT number FROM schema_migrations ORDER BY number")]
    assert numbers == [migration.number for migration in known_migrations()]
    connection.close()


def test_config_shows_what_is_in_effect_and_no_secret(tmp_path: Path) -> None:
    """Every setting by name, defaults included."""
    ended = run(tmp_path, "config", WHATSAPP__APP_SECRET="hunter2")
    lines = ended.stdout.splitlines()
    assert "PROMPTPIPE_IN_DOUBT_POLICY=resend" in lines
    assert "PROMPTPIPE_WHATSAPP__APP_SECRET=********" in lines
    assert "hunter2" not in ended.stdout + ended.stderr


def test_wrong_usage_is_exit_2(tmp_path: Path) -> None:
    """As everywhere."""
    assert run(tmp_path, "serv").returncode == 2
    assert run(tmp_path, "serve", "--nonsense").returncode == 2


async def test_second_process_on_the_same_file_is_refused(tmp_path: Path) -> None:
    """It says who has it, and the first one goes on."""
    async with open_service(Home.on_sqlite(tmp_path)) as (service, _):
        service.start()
        await service.wait_ready()
        assert service.process is not None
        ended = run(tmp_path, "serve")
        assert ended.returncode == 1
        assert f"is in use by another PromptPipe process (pid {service.process.pid})" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert await service.stop() == 0


async def test_busy_port_is_said_plainly(tmp_path: Path) -> None:
    """Which address, and which setting."""
    async with open_service(Home.on_sqlite(tmp_path)) as (service, _):
        service.start()
        await service.wait_ready()
        ended = run(tmp_path, "serve", HTTP_BIND=f"127.0.0.1:{service.port}", DATABASE_URL=f"sqlite:///{tmp_path}/b.db")
        assert ended.returncode == 1
        assert f"127.0.0.1:{service.port} is in use by another program; set PROMPTPIPE_HTTP_BIND" in ended.stderr


def test_simulator_stays_on_loopback(tmp_path: Path) -> None:
    """Whoever reaches it, can be anyone."""
    ended = run(tmp_path, "simulator", SIMULATOR_BIND="0.0.0.0:0")
    assert ended.returncode == 2
    assert "PROMPTPIPE_SIMULATOR_BIND" in ended.stderr


async def test_service_logs_json_when_told(tmp_path: Path) -> None:
    """One object a line, from the first entry to the last."""
    async with open_service(Home.on_sqlite(tmp_path), LOG_FORMAT="json") as (service, _):
        service.start()
        await service.wait_ready()
        await service.stop()
        lines = service.log().splitlines()
        assert all(line.startswith("{") and line.endswith("}") for line in lines)
        assert "stopped" in lines[-1]


async def test_chat_is_a_phone_in_the_terminal(tmp_path: Path) -> None:
    """Lines typed are sent, what arrives is shown."""
    async with open_service(Home.on_sqlite(tmp_path)) as (service, stand_in):
        service.start()
        await service.wait_ready()
        command = [sys.executable, "-m", "promptpipe", "simulator", "chat", "--name", "Ada"]
        chat = subprocess.Popen(
            command, env=service.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert chat.stdin is not None
        assert chat.stdout is not None
        chat.stdin.write("hi\n")
        chat.stdin.flush()
        phone = stand_in.world.phone("+16505551234")
        await eventually(lambda: len(phone.bubbles) == 3)
        shown = [chat.stdout.readline().strip() for _ in range(3)]
        chat.stdin.close()
        await eventually(lambda: chat.poll() is not None)
        assert chat.returncode == 0
        assert shown[0].startswith("You are Ada (+16505551234).")
        assert shown[1] == OPENING[1][1][: len(shown[1])]
        chat.stdout.close()


def test_chat_without_a_simulator_says_how_to_get_one(tmp_path: Path) -> None:
    """No traceback."""
    ended = run(tmp_path, "simulator", "chat", stdin="")
    assert ended.returncode == 1
    assert "promptpipe simulator" in ended.stdout


# ---------------------------------------------------------------- make run


class MakeRun:
    """`make run`, as a person starts it."""

    def __init__(self, folder: Path) -> None:
        self.service = Service(Home.on_sqlite(folder), free_port())
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = self.service.environment()
        del environment["PROMPTPIPE_AUTO_ENROLL"]
        with (self.folder / "run.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["make", "--no-print-directory", "run", f"PYTHON={sys.executable}"],  # noqa: S607
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def interrupt(self) -> None:
        """Do what Ctrl-C does in a terminal: signal the whole foreground group."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGINT)

    def log(self) -> str:
        return (self.folder / "run.log").read_text()

    async def wait_told(self, times: int) -> None:
        """Wait until it has said, for the nth time, that both are up, and where the phone is."""
        page = f"A phone to chat with it: http://127.0.0.1:{self.service.simulator_port}/"
        await eventually(lambda: self.log().count(page) == times)

    async def wait_ended(self) -> None:
        assert self.process is not None
        await eventually(lambda: self.process is not None and self.process.poll() is not None)

    def children(self) -> dict[str, int]:
        """Return the pids of the service and the simulator, by command."""
        assert self.process is not None
        found = {}
        for process in (entry for entry in Path("/proc").iterdir() if entry.name.isdecimal()):
            try:
                ours = self.service.home.database_url.encode() in (process / "environ").read_bytes()
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it has ended meanwhile, or is none of ours to look at
            for command in ("serve", "simulator"):
                if ours and command.encode() in words and b"--with-process" in words:
                    found[command] = int(process.name)
        return found


async def test_make_run_twice_and_a_kill_between(tmp_path: Path) -> None:
    """One command starts both, one Ctrl-C ends both; what was begun goes on the next time, and after a kill -9."""
    made = MakeRun(tmp_path)
    simulator = f"http://127.0.0.1:{made.service.simulator_port}"
    person = f"{simulator}/api/people/+16505551234/messages"

    async def texts(client: httpx2.AsyncClient) -> list[str]:
        return [bubble["text"] for bubble in (await client.get(person)).json()["messages"]]

    async with httpx2.AsyncClient() as client:
        try:
            made.start()
            await made.wait_told(1)
            assert "<title>PromptPipe simulator</title>" in (await client.get(f"{simulator}/")).text
            await client.post(person, json={"text": "hi"})

            async def greeted() -> bool:
                return len(await texts(client)) == 3

            await eventually(greeted)

            os.kill(made.children()["serve"], signal.SIGKILL)
            await client.post(person, json={"text": "stretch"})

            async def asked_again() -> bool:
                return (await texts(client))[-1] == INTAKE[2][1]

            await eventually(asked_again)
            assert "SIGKILL" in made.log()

            made.interrupt()
            await made.wait_ended()
            assert made.children() == {}
            assert "Traceback" not in made.log()

            made.start()
            await made.wait_told(2)
            await client.post(person, json={"text": "my back"})

            async def went_on() -> bool:
                return INTAKE[4][1] in await texts(client)

            await eventually(went_on)

            assert made.process is not None
            made.process.kill()
            await made.wait_ended()
            await eventually(lambda: made.children() == {})
        finally:
            for pid in made.children().values():
                os.kill(pid, signal.SIGKILL)
