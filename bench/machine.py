"""What was measured on, and with which versions."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
from importlib.metadata import version
from pathlib import Path

import psycopg

OURS = ("trio", "h2", "hypercorn", "quart-trio", "httpx2")


def machine(server_url: str | None = None, packages: tuple[str, ...] = OURS) -> dict[str, str]:
    """Return facts by name: the machine, Python, the databases, and the versions of *packages*."""
    kilobytes = int(_found(r"MemTotal:\s*(\d+)", "/proc/meminfo") or 0)
    facts = {
        "cores": str(os.cpu_count()),
        "CPU": _found(r"model name\s*:\s*(.+)", "/proc/cpuinfo") or platform.machine(),
        "RAM": f"{kilobytes / 2**20:.0f} GiB",
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
    }
    if server_url is not None:
        with psycopg.connect(server_url) as connection:
            number = connection.info.server_version
        facts["PostgreSQL"] = f"{number // 10_000}.{number % 10_000}"
        facts["psycopg"] = f"{psycopg.__version__} ({psycopg.pq.__impl__})"
    return facts | {package: version(package) for package in packages}


def _found(pattern: str, file: str) -> str | None:
    found = re.search(pattern, Path(file).read_text())
    return found and found[1]
