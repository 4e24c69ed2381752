"""The root nursery: starts the parts in order, drains them on a signal, and lets none of them die alone."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Protocol

import structlog
import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import FrameType

    Task = Callable[..., Awaitable[None]]

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
ECHO_SECONDS = 0.3

log = structlog.get_logger(__name__)


class Part(Protocol):
    """Something long-lived that takes in work, and can be asked to take in no more."""

    @property
    def name(self) -> str: ...  # noqa: D102

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Work until `stop` was called and the work at hand has ended."""
        ...

    def stop(self) -> None:
        """Take in no more work."""
        ...


class PartEndedError(Exception):
    """A part ended though nobody had asked it to: a defect."""


class Supervisor:
    """Runs parts, each depending on those before it; drains them together.

    An exception in any part cancels all the others and is raised.
    """

    def __init__(self, *, grace: float) -> None:
        self._grace = grace
        self._stop = trio.Event()
        self._running = 0
        self._all_ended = trio.Event()

    def stop(self) -> None:
        """Begin to drain."""
        self._stop.set()

    async def run(
        self,
        parts: Sequence[Part],
        *,
        before: Sequence[Task] = (),
        after: Sequence[Task] = (),
        draining: Callable[[], None],
    ) -> None:
        """Run *parts* until stopped.

        Tasks in *before* start ahead of the parts, those in *after* once all parts run; both are canceled when the
        parts have ended. *draining* is called when the drain begins: the parts then have the grace (seconds) to end
        by themselves, and are canceled after it.
        """
        async with trio.open_nursery() as background:
            for task in before:
                await background.start(task)
            async with trio.open_nursery() as nursery:
                for part in parts:
                    self._running += 1
                    await nursery.start(partial(self._run_part, part))
                for task in after:
                    background.start_soon(task)
                await self._stop.wait()
                log.info("draining", grace=self._grace)
                draining()
                for part in parts:
                    part.stop()
                with trio.move_on_after(self._grace) as grace:
                    await self._all_ended.wait()
                if grace.cancelled_caught:
                    log.warning("grace is over; canceling what still runs")
                nursery.cancel_scope.cancel()
            background.cancel_scope.cancel()

    async def _run_part(self, part: Part, *, task_status: trio.TaskStatus[None]) -> None:
        await part.run(task_status=task_status)
        if not self._stop.is_set():
            raise PartEndedError(f"the {part.name} ended by itself")
        self._running -= 1
        if self._running == 0:
            self._all_ended.set()


async def stop_on_signal(
    stop: Callable[[], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Call *stop* at the first SIGTERM or SIGINT; at the second, end the process at once, whatever hangs.

    Those that come within a moment of the first are its echoes: wrappers such as timeout(1) signal the process and
    then its whole group.
    """
    with trio.open_signal_receiver(*STOP_SIGNALS) as received:
        task_status.started()
        async for number in received:
            log.info("signal received; a second one ends the process at once", signal=signal.Signals(number).name)
            patience_ends = time.monotonic() + ECHO_SECONDS

            def exit_at_once(number: int, _: FrameType | None, patience_ends: float = patience_ends) -> None:
                if time.monotonic() > patience_ends:
                    os._exit(128 + number)

            for stop_signal in STOP_SIGNALS:
                # Not by way of Trio: its loop may be what hangs.
                signal.signal(stop_signal, exit_at_once)
            stop()
            await trio.sleep_forever()


async def stop_with_process(
    pid: int, stop: Callable[[], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Call *stop* when the process *pid* has ended: whoever started this one is gone, however it went."""
    task_status.started()
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        stop()
        return
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)
    log.info("the process that started this one has ended", pid=pid)
    stop()
