"""Commands of the program, each in a process of its own, forked from one that has imported everything.

What a user meets from the interpreter on is in `tests/e2e/test_commands.py`; here it is what the commands do.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import trio

from promptpipe.cli import main
from tests.faults.spawner import FORKS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PATIENCE = 30.0


async def run_command(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run `promptpipe` with *arguments* to its end, as `subprocess.run` would."""
    return await trio.to_thread.run_sync(partial(run_to_end, arguments, environment, folder))


def run_to_end(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run `promptpipe` with *arguments* to its end, as `subprocess.run` would, while nothing else happens here."""
    with TemporaryDirectory() as outputs:
        files = [Path(outputs) / name for name in ("stdout", "stderr")]
        process = FORKS.Process(target=_become, args=(list(arguments), dict(environment), folder, files), daemon=True)
        process.start()
        process.join(PATIENCE)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(f"promptpipe {' '.join(arguments)} has not ended")
        said, errors = (file.read_text() for file in files)
        return subprocess.CompletedProcess(arguments, process.exitcode, said, errors)


def _become(arguments: list[str], environment: dict[str, str], folder: Path, outputs: list[Path]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in enumerate(outputs, start=1):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.argv = ["promptpipe", *arguments]
    main()
