"""Services that start in a moment: forked from a process that has imported everything.

An interpreter with all imports costs two or three seconds of CPU; a test that kills one every second would measure
little else. What is forked is a process like any other, with an id, memory and sockets of its own.
"""

from __future__ import annotations

import multiprocessing
import os
from typing import TYPE_CHECKING

import trio

from promptpipe import app
from promptpipe.config import load_settings
from promptpipe.logs import set_up_logging
from tests.faults.root import echoing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.service import Service

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["promptpipe.app", "promptpipe.logs", "promptpipe.storage.postgres", "httpcore2"])

ANSWER_SECONDS = 0.1
"""How long the flow takes to answer, so that who is killed or frozen has conversations in hand."""


class Forked:
    """A service process with the echo flow, to be used like a `subprocess.Popen`. It ends with whoever forked it."""

    def __init__(self, environment: Mapping[str, str], folder: Path, log: Path) -> None:
        self._process = _FORKS.Process(target=_serve, args=(dict(environment), folder, log), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, sig: int, /) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int:
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode


def start_forked(service: Service) -> None:
    """Start *service* as `Service.start` does, with the echo flow."""
    log = service.folder / "service.log"
    service.process = Forked(service.environment(), service.folder, log)


def _serve(environment: Mapping[str, str], folder: Path, log: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    set_up_logging(as_json=False)
    trio.run(_run, os.getppid())


async def _run(parent: int) -> None:
    async with app.open_components(load_settings()) as components:
        await app.run(echoing(components, ANSWER_SECONDS), with_process=parent)
