"""Processes of this machine, by names that are never given twice, and whether they have ended."""

from __future__ import annotations

import os
from pathlib import Path


def this_process() -> str:
    """Return the name of this process: the machine's boot, the space of process ids, the id, and when it began."""
    pid = os.getpid()
    return f"{_space()}/{pid}/{_started(pid)}"


def has_ended(process: str) -> bool:
    """Return whether the process of that name has ended for certain; False for those of other machines.

    A container has a space of process ids of its own, so nothing is known of what runs in another.
    """
    space, _, rest = process.rpartition("/")[0].rpartition("/")
    started = process.rpartition("/")[2]
    return space == _space() and rest.isdecimal() and _started(int(rest)) != started


def _space() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"


def _started(pid: int) -> str | None:
    """Return when a process began, in ticks since the boot; None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the program's name, in parentheses, may hold anything
    return None if fields[0] in {"Z", "X"} else fields[19]
