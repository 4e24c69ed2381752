"""What docker-compose makes of the compose file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]

REQUIRED = {
    "POSTGRES_PASSWORD": "p@ss/word:%41",
    "PROMPTPIPE_ADMIN_TOKEN": "an-admin-token",
    "PROMPTPIPE_WHATSAPP__API_URL": "http://127.0.0.1:9/v24.0",
    "PROMPTPIPE_WHATSAPP__PHONE_NUMBER_ID": "1",
    "PROMPTPIPE_WHATSAPP__ACCESS_TOKEN": "an-access-token",
    "PROMPTPIPE_WHATSAPP__APP_SECRET": "an-app-secret",
    "PROMPTPIPE_WHATSAPP__VERIFY_TOKEN": "a-verify-token",
}
"""What the compose file cannot do without."""


def needed(program: str, package: str) -> str:
    """Return where *program* is; fail naming the Debian *package* that has it."""
    path = shutil.which(program)
    if path is None:
        pytest.fail(f"no {program} to test with: install Debian's package {package}", pytrace=False)
    return path


def compose(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run docker-compose on our file, with *variables* in the `.env` file of *folder* and no others."""
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    program, file = needed("docker-compose", "docker-compose"), REPOSITORY / "docker-compose.yml"
    return subprocess.run(
        [program, "--file", file, "--project-directory", folder, "--env-file", folder / ".env", *arguments],
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def resolved(folder: Path, **more: str) -> dict[str, Any]:
    """Return the compose file as docker-compose understands it, with what is required and *more* in `.env`."""
    shown = compose(folder, "config", **REQUIRED, **more)
    assert shown.returncode == 0, shown.stderr
    # By the Python that docker-compose runs on, which has a reader of YAML; ours has none.
    ended = subprocess.run(
        ["/usr/bin/python3", "-c", "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)"],
        input=shown.stdout,
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(ended.stdout)
    return answer
