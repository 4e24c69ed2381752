"""Service and simulator side by side, for a first look and for development: two processes, one signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import trio

from promptpipe.runtime.supervisor import stop_on_signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptpipe.config import Settings

RESTART_SECONDS = 0.5


async def run_both(settings: Settings, tell: Callable[[str], None]) -> int:
    """Run both until a signal ends them; return the exit code. *tell* prints a line for the person who watches.

    A service that is killed is started again: that is what this system is for. Any other unexpected end ends both.
    The children live in sessions of their own, so that Ctrl-C reaches them by way of this process alone, and end by
    themselves when it is gone.
    """
    pair = _Pair(tell)
    async with trio.open_nursery() as nursery:
        await nursery.start(stop_on_signal, pair.stop)
        await nursery.start(partial(pair.run, "simulator", restart=False))
        await nursery.start(partial(pair.run, "serve", restart=True))
        tell(f"Service on http://{settings.http_bind}, simulated WhatsApp on http://{settings.simulator_bind}.")
        tell("Chat with it in another terminal: .venv/bin/promptpipe simulator chat")
        await pair.wait_ended()
        nursery.cancel_scope.cancel()
    return pair.exit_code


class _Pair:
    """The two children, and whether they are to end."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._stopping = trio.Event()
        self._children: dict[str, trio.Process] = {}
        self._service_ended = trio.Event()
        self._simulator_ended = trio.Event()
        self.exit_code = 0

    def stop(self) -> None:
        self._stopping.set()

    async def wait_ended(self) -> None:
        """Once stopping, end the service and then the simulator, which the service may still talk to."""
        await self._stopping.wait()
        for name, ended in (("serve", self._service_ended), ("simulator", self._simulator_ended)):
            child = self._children[name]
            if child.returncode is None:
                child.terminate()
            await ended.wait()

    async def run(self, command: str, *, restart: bool, task_status: trio.TaskStatus[None]) -> None:
        while True:
            self._children[command] = child = await _start(command)
            task_status.started()
            code = await child.wait()
            if child.stdin is not None:
                await child.stdin.aclose()
            if self._stopping.is_set():
                break
            if not restart or code >= 0:
                self._tell(f"promptpipe {command} ended by itself (exit code {code}).")
                self._stopping.set()
                break
            self._tell(f"The service was killed ({signal.Signals(-code).name}); starting it again.")
            task_status = trio.TASK_STATUS_IGNORED
            await trio.sleep(RESTART_SECONDS)
            if self._stopping.is_set():
                break
        self.exit_code = self.exit_code or max(code, 0)
        (self._service_ended if command == "serve" else self._simulator_ended).set()


async def _start(command: str) -> trio.Process:
    environment = {"PROMPTPIPE_AUTO_ENROLL": "true", **os.environ}
    return await trio.lowlevel.open_process(
        [sys.executable, "-m", "promptpipe", command, "--with-stdin"],
        stdin=subprocess.PIPE,
        start_new_session=True,
        env=environment,
    )
