"""What the driver leans on: one version of psycopg, in two implementations, and never asyncio."""

from __future__ import annotations

import asyncio  # noqa: TID251  to forbid it
import enum
import os
import re
import subprocess
import sys
from ctypes.util import find_library
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import waiting

from promptpipe.storage.postgres.driver import Connection, internals
from promptpipe.storage.postgres.driver.internals import KNOWN_VERSION, check_psycopg
from tests.postgres import test_fuzz
from tests.postgres.observer import assert_sound

if TYPE_CHECKING:
    from tests.postgres.observer import Observer

REPOSITORY = Path(__file__).parents[2]


def test_known_version() -> None:
    """The psycopg that is installed is the one that the driver knows, and the one that is asked for."""
    check_psycopg()
    assert f'"psycopg[binary]=={KNOWN_VERSION}"' in (REPOSITORY / "pyproject.toml").read_text()


def test_other_version() -> None:
    """Any other version is refused by name, even if it looks the same."""
    with pytest.raises(ImportError, match=r"written for psycopg 3\.3\.9, not for 3\.3\.10: the names it uses look"):
        check_psycopg("3.3.10")


@pytest.mark.parametrize(
    "name", sorted(internals._GENERATORS | internals._FUNCTIONS | dict.fromkeys(internals._OTHERS))
)
def test_missing_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A name that is gone is named, or what is found in its place."""
    module, _, path = name.partition(":")
    *owner, attribute = path.split(".")
    found = import_module(f"psycopg.{module}")
    for part in owner:
        found = getattr(found, part)
    if isinstance(found, enum.EnumType):
        monkeypatch.setattr(import_module(f"psycopg.{module}"), owner[0], enum.Enum("Other", {"OTHER": 1}))
    else:
        monkeypatch.delattr(found, attribute)
    with pytest.raises(ImportError, match=rf"{re.escape(name)} (is gone|takes)"):
        check_psycopg()


def test_other_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """So is one that takes something else, or is not a generator any more."""

    def commit(self: object, fast: bool) -> None:
        pass

    monkeypatch.setattr(psycopg.BaseConnection, "_commit_gen", commit)
    with pytest.raises(ImportError, match=r"_commit_gen takes \(self fast\).*_commit_gen is not a generator"):
        check_psycopg()


def test_other_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    """So is an attribute that is not set any more, or a module that has begun to use asyncio."""
    monkeypatch.setattr(psycopg.connection_async.AsyncConnection, "__init__", lambda self, pgconn, row_factory: None)
    monkeypatch.setattr(psycopg.cursor_async, "asyncio", asyncio, raising=False)
    with pytest.raises(ImportError, match=r"__init__ sets no lock.*cursor_async uses asyncio"):
        check_psycopg()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("psycopg.__version__ = '4.0'", "not for 4.0: the names it uses look"),
        (
            "del psycopg.BaseConnection._commit_gen",
            "not for 3.3.9: _connection_base:BaseConnection._commit_gen is gone",
        ),
        ("del psycopg.waiting._ready", "not for 3.3.9: waiting:_ready is gone"),
        ("del psycopg._preparing.Key", "not for 3.3.9: _preparing:Key is gone"),
    ],
)
def test_import_fails(change: str, error: str) -> None:
    """The driver as a whole cannot be imported then, and what it would have missed first does not hide the reason."""
    program = f"import psycopg; {change}; import promptpipe.storage.postgres.driver"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert f"ImportError: the driver is written for psycopg 3.3.9, {error}" in ended.stderr


async def test_asyncio_is_never_touched(url: str, observer: Observer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything works with an asyncio that refuses to."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("asyncio was used")

    for name in (
        "get_running_loop",
        "get_event_loop",
        "new_event_loop",
        "create_task",
        "to_thread",
        "wait_for",
        "sleep",
    ):
        monkeypatch.setattr(asyncio, name, refuse)
    for name in ("get_running_loop", "sleep", "Future"):
        monkeypatch.setattr(waiting, name, refuse)
    for method in ("acquire", "release", "__aenter__", "__aexit__"):
        monkeypatch.setattr(asyncio.Lock, method, refuse)
    observer.rows("CREATE TABLE IF NOT EXISTS fuzz (id int PRIMARY KEY, v text)")
    async with await Connection.connect(url, autocommit=True) as connection:
        for operation in test_fuzz.OPERATIONS:
            await operation(connection)
            await assert_sound(connection)
        assert [note async for note in connection.notifies(timeout=0)] == []
    await test_fuzz.check(url, observer, rounds=60, seed=6)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_pure_python(postgres_url: str) -> None:
    """The fast tests of this folder pass with psycopg's pure Python implementation and the system's libpq.

    But for those by chance, which take long and look at what the driver makes of answers, wherever they come from.
    """
    assert psycopg.pq.__impl__ == "binary"
    assert find_library("pq"), "no libpq: install Debian's libpq5"
    again = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not slow",
        "--timeout=120",
        "-k",
        "not fuzz",
    ]
    environment = os.environ | {"PSYCOPG_IMPL": "python", "PROMPTPIPE_TEST_POSTGRES_URL": postgres_url}
    ended = subprocess.run(
        [*again, REPOSITORY / "tests" / "postgres"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    skipped = [line for line in ended.stdout.splitlines() if line.startswith("SKIPPED")]
    assert all("libpq" in line for line in skipped), skipped
