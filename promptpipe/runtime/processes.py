"""Processes of this machine, by names that are never given twice, and whether they have ended."""

from __future__ import annotations

import os
from pathlib import Path


def this_process() -> str:
    """Return the name of this process: the machine's boot, the space of process ids, the id, and when it began.

    Where the system does not tell, the name says nothing, and nobody will know whether the process has ended.
    """
    pid = os.getpid()
    space = _space()
    return f"{space}/{pid}/{_started(pid)}" if space is not None else "unknown"


def has_ended(process: str) -> bool:
    """Return whether the process of that name has ended for certain; False for those of other machines.

    A container has a space of process ids of its own, so nothing is known of what runs in another.
    """
    space, _, rest = process.rpartition("/")[0].rpartition("/")
    started = process.rpartition("/")[2]
    return rest.isdecimal() and space == _space() and _started(int(rest)) != started


def _space() -> str | None:
    """Return the machine's boot and this process's space of ids; None where they cannot be read."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """Return when a process began, in ticks since the boot; None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the program's name, in parentheses, may hold anything
    return None if fields[0] in {"Z", "X"} else fields[19]
