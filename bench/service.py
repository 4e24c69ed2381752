"""The whole service in a process of its own, with a flow or kinds of jobs put into it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import trio

from bench.worker import CONTEXT
from promptpipe import app
from promptpipe.logs import set_up_logging

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

STOP_SECONDS = 20.0


@contextmanager
def open_service(log: Path, serve: Callable[..., Awaitable[None]], *arguments: Any) -> Iterator[int]:
    """Give the id of a process that does *serve* until SIGTERM; what it logs goes to *log*."""
    process = CONTEXT.Process(target=_main, args=(log, serve, arguments), daemon=True)
    process.start()
    try:
        yield process.pid  # type: ignore[misc]
        process.terminate()
        process.join(STOP_SECONDS)
    finally:
        process.kill()
        process.join()
    if process.exitcode:
        raise RuntimeError(f"the service ended with {process.exitcode}:\n{log.read_text()}")


def _main(log: Path, serve: Callable[..., Awaitable[None]], arguments: tuple[Any, ...]) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    set_up_logging(as_json=False)
    app.settle_memory()
    trio.run(serve, *arguments)


def cpu_seconds(process: int) -> float:
    """Return the CPU time that a process has used so far."""
    with open(f"/proc/{process}/stat") as file:  # noqa: PTH123
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
