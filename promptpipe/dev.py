"""Service and simulator side by side, for a first look and for development: two processes, one signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import trio

from promptpipe.config import split_bind
from promptpipe.runtime.supervisor import stop_on_signal, stop_with_process

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from promptpipe.config import Settings

RESTART_SECONDS = 0.5
LOOK_AGAIN_SECONDS = 0.05


async def run_both(settings: Settings, tell: Callable[[str], None], with_process: int | None) -> int:
    """Run both until a signal ends them, or the process *with_process* has ended; return the exit code.

    *tell* prints a line for the person who watches. A service that is killed is started again: surviving that is
    what this system is for. Any other unexpected end ends both. The children live in sessions of their own, so that
    Ctrl-C reaches them by way of this process alone, and end by themselves when it is gone.
    """
    # A newcomer's first message is to be answered, unless somebody decided otherwise.
    chosen = {} if "auto_enroll" in settings.model_fields_set else {"PROMPTPIPE_AUTO_ENROLL": "true"}
    pair = _Pair(tell, {**os.environ, **chosen})
    async with trio.open_nursery() as nursery:
        await nursery.start(stop_on_signal, pair.stopping.set)
        if with_process is not None:
            await nursery.start(stop_with_process, with_process, pair.stopping.set)
        nursery.start_soon(pair.run_simulator)
        nursery.start_soon(pair.run_service)
        nursery.start_soon(_tell_when_up, settings, tell)
        await pair.wait_ended()
        nursery.cancel_scope.cancel()
    return pair.exit_code


class _Child:
    """One of the two processes, and the event of its last end."""

    def __init__(self, command: str, environment: Mapping[str, str]) -> None:
        self.command = command
        self._environment = environment
        self.process: trio.Process | None = None
        self.ended = trio.Event()

    async def run(self) -> int:
        """Start the process and return its exit code, negative for a signal."""
        self.process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "promptpipe", self.command, "--with-process", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=self._environment,
        )
        return await self.process.wait()

    async def end(self) -> None:
        """End the process, if it runs, and wait for that."""
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
        await self.ended.wait()


class _Pair:
    def __init__(self, tell: Callable[[str], None], environment: Mapping[str, str]) -> None:
        self._tell = tell
        self._service = _Child("serve", environment)
        self._simulator = _Child("simulator", environment)
        self.stopping = trio.Event()
        self.exit_code = 0

    async def run_service(self) -> None:
        code = await self._service.run()
        while code < 0 and not self.stopping.is_set():
            self._tell(f"The service was killed ({signal.Signals(-code).name}); starting it again.")
            await trio.sleep(RESTART_SECONDS)
            code = await self._service.run()
        self._has_ended(self._service, code)

    async def run_simulator(self) -> None:
        self._has_ended(self._simulator, await self._simulator.run())

    async def wait_ended(self) -> None:
        """Once stopping, end the service, and then the simulator, which the service may still talk to."""
        await self.stopping.wait()
        await self._service.end()
        await self._simulator.end()

    def _has_ended(self, child: _Child, code: int) -> None:
        if not self.stopping.is_set():
            self._tell(f"promptpipe {child.command} ended by itself (exit code {code}).")
        self.exit_code = self.exit_code or abs(code)
        self.stopping.set()
        child.ended.set()


async def _tell_when_up(settings: Settings, tell: Callable[[str], None]) -> None:
    """Tell the addresses as soon as somebody listens there."""
    for bind in (settings.simulator_bind, settings.http_bind, settings.grpc_bind):
        while not await _is_up(bind):  # noqa: ASYNC110  another process cannot set an event of ours
            await trio.sleep(LOOK_AGAIN_SECONDS)
    tell(f"A phone to chat with it: http://{settings.simulator_bind}/")
    tell(f"Webhooks and health on http://{settings.http_bind}, gRPC on {settings.grpc_bind}. Ctrl-C ends everything.")


async def _is_up(bind: str) -> bool:
    try:
        stream = await trio.open_tcp_stream(*split_bind(bind))
    except OSError:
        return False
    await stream.aclose()
    return True
