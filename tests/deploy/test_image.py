"""The image: made of what is locked and nothing else, and run by somebody who can change none of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from promptpipe import __version__
from promptpipe.config import PREFIX
from tests.deploy.compose import REPOSITORY, needed, resolved
from tests.deploy.dockerfile import Image, build, context, describe, ignored
from tests.support.eventually import eventually
from tests.support.service import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = (REPOSITORY / "Dockerfile").read_text()
SCRIPT = Path(__file__).parent / "base.debootstrap"
BASE_SECONDS = 150
RUN_SECONDS = 30

MOUNT = """
set -e
mount --bind "$ROOT" "$ROOT"
mount -o remount,bind,ro "$ROOT"
mount --bind "$VOLUME" "$ROOT$TARGET"
mount -t tmpfs tmpfs "$ROOT/tmp"
exec "$@"
"""
"""What an engine does for `read_only`, a named volume and a `tmpfs`. The mounts end with the process."""

INSTALLED = """
import importlib.metadata, json
found = importlib.metadata.distributions()
print(json.dumps([f"{one.name.lower().replace('_', '-')}=={one.version}" for one in found]))
"""


@dataclass(frozen=True)
class Container:
    """An image with the named volume that the compose file gives it, and a read-only root."""

    image: Image
    volume: Path
    target: str
    environment: dict[str, str]

    def start(self, *command: str, **more: str) -> subprocess.Popen[str]:
        """Start *command* as the image's user."""
        mounts = {"ROOT": str(self.image.root), "VOLUME": str(self.volume), "TARGET": self.target}
        argv = self.image.chroot(*command, **self.environment, **more)
        return subprocess.Popen(
            ["unshare", "--mount", "/bin/sh", "-c", MOUNT, "mount", *argv],  # noqa: S607
            env={"PATH": os.environ["PATH"], **mounts},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: str, **more: str) -> tuple[int, str]:
        """Run *command* to its end and return its exit code and what it said."""
        with self.start(*command, **more) as process:
            try:
                said, _ = process.communicate(timeout=RUN_SECONDS)
            finally:
                process.kill()
            return process.returncode, said


@pytest.fixture
def base() -> Iterator[Path]:
    """Give a bare Debian in the place of the base image."""
    if os.geteuid() != 0:
        pytest.fail("the steps of the Dockerfile are taken by chroot, which needs root", pytrace=False)
    program = needed("debootstrap", "debootstrap")
    with tempfile.TemporaryDirectory(prefix="promptpipe-image-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        root = folder / "base"
        command = [program, "--foreign", "--variant=minbase", "bookworm", str(root), *mirror(), str(SCRIPT)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=BASE_SECONDS)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        for kind in ("passwd", "group"):
            shutil.copy(root / f"usr/share/base-passwd/{kind}.master", root / f"etc/{kind}")
        yield root


@pytest.fixture
def container(base: Path, tmp_path: Path) -> Container:
    """Give a container of the image as the compose file has it, but for a database and ports that need no other."""
    image = build(TEXT, context(REPOSITORY, tmp_path / "context"), base, base.parent)
    service = resolved(tmp_path)["services"]["promptpipe"]
    [mount] = service["volumes"]
    target = mount.split(":")[1]
    volume = base.parent / "volume"
    subprocess.run(["cp", "-a", str(image.root / target.lstrip("/")), str(volume)], check=True)  # noqa: S607
    given = {name: value for name, value in service["environment"].items() if value is not None}
    given[f"{PREFIX}DATABASE_URL"] = image.environment[f"{PREFIX}DATABASE_URL"]
    given |= {f"{PREFIX}{plane}_BIND": f"127.0.0.1:{free_port()}" for plane in ("HTTP", "GRPC")}
    return Container(image, volume, target, given)


def mirror() -> list[str]:
    """Return where this machine gets Debian 12 from, if it says so; debootstrap knows a place otherwise."""
    # Without its lists, which a machine may not have fetched: what is configured is enough.
    shown = ("--no-release-info", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages")
    known = subprocess.run(["apt-get", "indextargets", *shown], capture_output=True, text=True, check=False).stdout  # noqa: S607
    return re.findall(r"^bookworm (\S+)$", known, re.MULTILINE)[:1]


def test_the_image_is_run_as_agreed() -> None:
    """By a fixed user who is not root, with a health check, and so that SIGTERM reaches the program itself."""
    image = describe(TEXT)
    user, group = map(int, image.user.split(":"))
    assert min(user, group) >= 10_000
    assert image.health
    assert (image.entrypoint, image.command, image.stop_signal) == (("promptpipe",), ("serve",), "SIGTERM")
    assert image.environment[f"{PREFIX}DATABASE_URL"] == f"sqlite:///{image.volumes[0]}/promptpipe.db"
    assert image.labels["org.opencontainers.image.version"] == __version__


MADE_HERE = [".env", "promptpipe.db", ".git/config", "promptpipe/web/__pycache__/app.pyc", "tests/conftest.py"]


@pytest.mark.parametrize("name", MADE_HERE)
def test_nothing_but_the_product_gets_near_a_builder(name: str) -> None:
    """No secret, no database, nothing that was made here."""
    patterns = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert ignored(name, patterns)
    assert not ignored("promptpipe/web/app.py", patterns)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_steps_of_the_dockerfile_make_an_image_that_serves(container: Container) -> None:
    """Of the locked packages alone; as its own user, on a read-only root, it writes nowhere but to its volume."""
    check_packages(container)
    check_nobody_can_change_it(container.image)
    check_commands(container)
    await check_service(container)


def check_packages(container: Container) -> None:
    """Check that what is installed is what is locked for running, with nothing that only builds or tests."""
    code, said = container.run("python", "-c", INSTALLED)
    assert code == 0, said
    locked = (REPOSITORY / "requirements/runtime.txt").read_text()
    allowed = {f"{name}=={version}" for name, version in re.findall(r"^([\w.-]+)==(\S+)", locked, re.MULTILINE)}
    assert set(json.loads(said)) - allowed == {f"promptpipe=={__version__}"}
    assert container.run("python", "-c", "import psycopg; print(psycopg.pq.__impl__)") == (0, "binary\n")


def check_nobody_can_change_it(image: Image) -> None:
    """Check that the program is root's alone to write, and compiled, since nobody can do so later."""
    files = [path for path in (image.root / "opt").rglob("*") if not path.is_symlink()]
    assert [path for path in files if path.stat().st_uid or path.stat().st_mode & 0o022] == []
    assert any(path.match("promptpipe/web/__pycache__/app.*.pyc") for path in files)


def check_commands(container: Container) -> None:
    """Check that an operator in the container is answered, and that without secrets the service says what it wants."""
    image = container.image
    assert container.run(*image.entrypoint, "version") == (0, f"{__version__}\n")
    code, said = container.run(*image.entrypoint, "config")
    assert (code, f"{PREFIX}ADMIN_TOKEN=********" in said.splitlines()) == (0, True), said
    code, said = replace(container, environment={}).run(*image.entrypoint, *image.command)
    assert (code, said.count("\n")) == (2, 1), said
    assert said.startswith(f"promptpipe: {PREFIX}"), said


async def check_service(container: Container) -> None:
    """Check that the health check tells a ready service from none, and that the stop signal ends it in order."""
    image = container.image
    code, said = container.run(*image.health)
    assert (code, said.partition(":")[0]) == (1, "no answer")
    process = container.start(*image.entrypoint, *image.command)
    try:
        await eventually(lambda: process.poll() is not None or container.run(*image.health) == (0, "ready\n"))
        assert process.poll() is None, process.communicate()
        process.send_signal(signal.Signals[image.stop_signal])
        said, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, json.loads(said.splitlines()[-1])["event"]) == (0, "stopped"), said
    database = (container.volume / "promptpipe.db").stat()
    assert f"{database.st_uid}:{database.st_gid}" == image.user
