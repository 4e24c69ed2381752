"""The audit of what lasts names everything that does, and its proofs exist."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from promptpipe.config import flat_names
from promptpipe.flows.conversation import ConversationFlow, ConversationSettings, state
from promptpipe.flows.registry import FlowRegistry
from promptpipe.services.jobs import NOOP
from promptpipe.storage.sqlite.migrations import migrate

if TYPE_CHECKING:
    from collections.abc import Iterable

REPOSITORY = Path(__file__).parents[2]
_, *PARTS = re.split(r"^## (.+)$", (REPOSITORY / "docs" / "persistence-audit.md").read_text(), flags=re.MULTILINE)
AUDIT = dict(zip(PARTS[::2], PARTS[1::2], strict=True))


def first_cells(part: str) -> list[str]:
    """Return what the rows of a part's table are about, in their order."""
    rows = [line for line in AUDIT[part].splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def assert_the_same(named: Iterable[str], there: Iterable[str]) -> None:
    assert sorted(named) == sorted(there)


def test_every_table_of_sqlite_is_audited() -> None:
    """And none that is no more."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection, 0)
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    assert_the_same(first_cells("Tables"), tables)


def test_postgresql_has_no_other_tables(shared_database: str) -> None:
    """But for the clock of the tests; fences come from a sequence of its own there."""
    with psycopg.connect(shared_database) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    assert_the_same(first_cells("Tables"), {*(name for (name,) in rows), "sequences"} - {"test_clock"})


def test_every_kind_of_job_is_audited() -> None:
    """Timers and others."""
    timers = FlowRegistry([ConversationFlow(ConversationSettings())]).job_kinds
    assert_the_same(first_cells("Kinds of jobs"), {*timers, NOOP.name})


def test_every_key_of_the_conversation_is_audited() -> None:
    """All that the flow has a name for."""
    named = {value for name, value in vars(state).items() if name.isupper() and isinstance(value, str)}
    assert_the_same(first_cells("The conversation's state"), {*named, *state.SHAPES})


def test_every_setting_is_decided_about() -> None:
    """Whether it holds state or not."""
    without = AUDIT["Settings"].rpartition("hold nothing:")[2]
    assert_the_same([*first_cells("Settings"), *re.findall(r"`(\w+)`", without)], flat_names())


@pytest.mark.parametrize("proof", sorted(set(re.findall(r"`(tests/[^`]+)`", "\n".join(PARTS)))))
def test_proof_exists(proof: str) -> None:
    """Under the name that is given."""
    path, _, name = proof.partition("::")
    assert f"def {name}" in (REPOSITORY / path).read_text()
