"""Services that start in a moment: forked from a process that has imported everything.

An interpreter with all imports costs two or three seconds of CPU; a test that kills one every second would measure
little else. What is forked is a process like any other, with an id, memory and sockets of its own.
"""

from __future__ import annotations

import multiprocessing
import os
from functools import partial
from typing import TYPE_CHECKING

import trio

from promptpipe.logs import set_up_logging
from tests.faults.root import serve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.support.service import Service

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "tests.faults.root",
        "tests.support.commands",
        "promptpipe.client",
        "promptpipe.logs",
        "promptpipe.storage.postgres",
        "httpcore2",
    ]
)


class Forked:
    """A service process, to be used like a `subprocess.Popen`. It ends with whoever forked it."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> None:
        self._process = FORKS.Process(target=_serve, args=(arguments, dict(environment), folder, log), daemon=True)
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


def start_forked(service: Service, *arguments: str) -> None:
    """Start *service* as `Service.start` does, with what *arguments* (see `root`) put into it."""
    log = service.folder / "service.log"
    service.process = Forked(arguments, service.environment(), service.folder, log)


def _serve(arguments: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    set_up_logging(as_json=False)
    trio.run(partial(serve, arguments, with_process=os.getppid()))
