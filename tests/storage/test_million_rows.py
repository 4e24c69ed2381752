"""Every hot statement keeps to its index among a million rows, the planner left to itself.

On SQLite its statistics say so, which is all that its planner knows of rows. PostgreSQL looks at the size of files,
too: there they are real, in the tables that claims and hand-outs search.
"""

from __future__ import annotations

import math
import re
import sqlite3
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest
import trio

from promptpipe.storage.postgres import PostgresConfig, migrate_postgres
from promptpipe.storage.sqlite.migrations import migrate
from tests.storage import test_plans, test_postgres_plans
from tests.support.postgres import drop_database, new_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

MILLION = 1_000_000

FEW = {"queue": 3, "priority": 4, "kind": 2, "status": 3, "channel": 1, "number_id": 1, "flow_type": 3, "n": 2}
"""Columns that have a few values; the others tell all rows apart."""

PARTIAL = {"outbox_messages_in_doubt": 1000}
"""How many rows are in indexes that hold but a few; the other partial ones can have nearly all."""

ROWS: dict[str, LiteralString] = {
    "jobs": """
        INSERT INTO jobs (id, queue, priority, due_at, kind, status, run_at, payload, dedupe_key, participant_id,
            max_attempts, worker, created_at, updated_at)
        SELECT 'j' || n, 'q' || n % 3, n % 4, now() + n * interval '1 s', 'k', 'queued', now(), '{}', 'd' || n,
            'p' || n, 20, 'w' || n, now(), now()
        FROM generate_series(1, 1000000) AS n
    """,
    "lanes": """
        INSERT INTO lanes (kind, key, priority, due_at, worker)
        SELECT CASE n % 2 WHEN 0 THEN 'mailbox' ELSE 'outbox' END, 'l' || n, n % 2, now() + n * interval '1 s', 'w' || n
        FROM generate_series(1, 1000000) AS n
    """,
    "mailbox_events": """
        INSERT INTO mailbox_events (id, participant_id, seq, kind, payload, dedupe_key, max_attempts, created_at)
        SELECT 'e' || n, 'p' || n % 100000, n, 'replied', '{}', 'd' || n, 20, now()
        FROM generate_series(1, 1000000) AS n
    """,
    "outbox_messages": """
        INSERT INTO outbox_messages (id, participant_id, channel, recipient, recipient_kind, class, lane_key, seq,
            kind, body, status, max_attempts, dedupe_key, not_before, created_at, updated_at)
        SELECT 'm' || n, 'p' || n % 100000, 'c', 'r', 'phone', 'reply', 'p' || n % 100000, n, 'text', '{}', 'queued',
            20, 'd' || n, now() + n * interval '1 s', now(), now()
        FROM generate_series(1, 1000000) AS n
    """,
    "outbox_attempts": """
        INSERT INTO outbox_attempts (message_id, n, fence, channel, provider_id, state, started_at)
        SELECT 'm' || n, 1, n, 'c', 'w' || n, 'sending', now() FROM generate_series(1, 1000000) AS n
    """,
}

SEARCHED = [
    name
    for name, (index, _) in test_postgres_plans.HOT.items()
    if re.match(rf"({'|'.join(ROWS)})_(?!participant)", index)
]
"""Hot statements on these tables."""


@pytest.fixture(scope="module")
def statistics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """Give a database whose statistics have a million rows in each table."""
    path: Path = tmp_path_factory.mktemp("million") / "plans.db"
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, 0)
    connection.execute("ANALYZE")
    query = """
        SELECT tables.name, indexes.name, wr AND origin = 'pk' FROM pragma_table_list AS tables
        JOIN pragma_index_list(tables.name) AS indexes WHERE tables.name NOT LIKE 'sqlite_%'
    """
    for table, index, is_table in connection.execute(query).fetchall():
        columns = [row[2] for row in connection.execute(f"PRAGMA index_info({index})")]
        values = [math.prod(FEW.get(column, MILLION) for column in columns[: n + 1]) for n in range(len(columns))]
        rows = PARTIAL.get(index, MILLION)
        figures = [rows, *(max(1, rows // each) for each in values)]
        name = table if is_table else index
        connection.execute("INSERT INTO sqlite_stat1 VALUES (?, ?, ?)", (table, name, " ".join(map(str, figures))))
    connection.close()
    opened = sqlite3.connect(path, isolation_level=None)  # statistics are read when a database is opened
    yield opened
    opened.close()


@pytest.mark.parametrize("name", test_plans.HOT)
def test_statement_searches_its_index_on_sqlite(statistics: sqlite3.Connection, name: str) -> None:
    """As it does without statistics."""
    test_plans.test_hot_statement_searches_its_index(statistics, name)


@pytest.fixture(scope="module")
def million(local_url: str) -> Iterator[psycopg.Connection]:
    """Give a database with a million rows in each of some tables; their indexes are made when the rows are there."""
    url = new_database(local_url)
    trio.run(migrate_postgres, PostgresConfig(url=url))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET maintenance_work_mem = '256MB'")
        for table, rows in ROWS.items():
            query = """
                SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid), indisprimary FROM pg_index
                WHERE indrelid = %s::regclass
            """
            indexes = connection.execute(query, [table]).fetchall()
            connection.execute(f"ALTER TABLE {table} SET UNLOGGED".encode())
            for name, _, primary in indexes:
                what = f"ALTER TABLE {table} DROP CONSTRAINT {name}" if primary else f"DROP INDEX {name}"
                connection.execute(what.encode())
            connection.execute(rows)
            for _, definition, _ in indexes:
                connection.execute(str(definition).encode())
        connection.execute("ANALYZE")
        yield connection
    drop_database(local_url, url)


@pytest.mark.timeout(180)
def test_statements_search_their_indexes_on_postgres(million: psycopg.Connection) -> None:
    """They look through none of these tables. One test, for the rows are made but once so."""
    plans = {name: test_postgres_plans.plan_of(million, name) for name in SEARCHED}
    assert {name: plan for name, plan in plans.items() if not searches(plan, *test_postgres_plans.HOT[name])} == {}


def searches(plan: str, index: str, columns: list[str]) -> bool:
    """Return whether a plan searches *index* by all of *columns*, and scans none of the tables."""
    conditions = re.findall(rf"(?:using|on) {index}\b[^\n]*\n\s*Index Cond: (.*)", plan)
    narrowed = any(all(re.search(rf"\b{column}\b", line) for column in columns) for line in conditions)
    return narrowed and not any(re.search(rf"Seq Scan on {table}\b", plan) for table in ROWS)
