"""Every hot statement on PostgreSQL can use the index that was made for it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg
import pytest
import trio

from promptpipe.storage.postgres import PostgresConfig, migrate_postgres
from promptpipe.storage.postgres.transaction import STATEMENTS
from promptpipe.storage.transactions.erasing import ERASED
from tests.support.postgres import drop_database, new_database

if TYPE_CHECKING:
    from collections.abc import Iterator

HOT = {
    # statement: the index that narrows the search, and the columns by which it does
    "claim_lanes": ("lanes_due", ["kind", "priority", "due_at"]),
    "next_due_lane": ("lanes_due", ["kind", "priority", "due_at"]),
    "lock_lanes": ("lanes_pkey", ["kind", "key"]),
    "extend_lanes": ("lanes_pkey", ["kind", "key"]),
    "held_lanes": ("lanes_pkey", ["kind", "key"]),
    "keep_lanes": ("lanes_pkey", ["kind", "key"]),
    "release_lanes": ("lanes_pkey", ["kind", "key"]),
    "set_lane_due": ("lanes_pkey", ["kind", "key"]),
    "lanes_of_worker": ("lanes_worker", ["worker"]),
    "claim_jobs": ("jobs_due", ["queue", "priority", "due_at"]),
    "finish_jobs": ("jobs_pkey", ["id"]),
    "taken_keys": ("jobs_dedupe", ["dedupe_key"]),
    "next_due_job": ("jobs_due", ["queue", "priority", "due_at"]),
    "held_jobs": ("jobs_pkey", ["id"]),
    "extend_jobs": ("jobs_pkey", ["id"]),
    "delete_job": ("jobs_pkey", ["id"]),
    "jobs_by_key": ("jobs_dedupe", ["dedupe_key"]),
    "cancel_jobs": ("jobs_pkey", ["id"]),
    "prune_done_jobs": ("job_history_pkey", ["id"]),
    "prune_ended_jobs": ("job_history_ended", ["status", "finished_at"]),
    "prune_job_keys": ("job_dedupe_until", ["until"]),
    "prune_inbound_marks": ("inbound_dedup_seen", ["seen_at"]),
    "head_events": ("mailbox_events_order", ["participant_id"]),
    "hand_out_events": ("mailbox_events_pkey", ["id"]),
    "delete_events": ("mailbox_events_pkey", ["id"]),
    "mark_responses_processed": ("responses_pkey", ["id"]),
    "waiting_timers": ("mailbox_events_dedupe", ["dedupe_key"]),
    "head_message": ("outbox_messages_order", ["lane_key"]),
    "head_messages": ("outbox_messages_order", ["lane_key"]),
    "messages_on_their_way": ("outbox_attempts_pkey", ["message_id", "n"]),
    "known_among": ("parked_updates_pkey", ["channel", "provider_id"]),
    "accept_attempts": ("outbox_attempts_pkey", ["message_id", "n"]),
    "accept_messages": ("outbox_messages_pkey", ["id"]),
    "message_by_key": ("outbox_messages_dedupe", ["dedupe_key"]),
    "postponed_messages": ("outbox_messages_not_before", ["not_before"]),
    "next_postponed": ("outbox_messages_not_before", ["not_before"]),
    "mark_sending": ("outbox_messages_pkey", ["id"]),
    "attempt": ("outbox_attempts_pkey", ["message_id", "n"]),
    "attempt_by_provider_id": ("outbox_attempts_provider", ["channel", "provider_id"]),
    "writers": ("participant_addresses_pkey", ["channel", "address"]),
    "owners_of_addresses": ("participant_addresses_pkey", ["channel", "address"]),
    "addresses_of": ("participant_addresses_owner", ["participant_id"]),
    "participants": ("conversation_participants_pkey", ["id"]),
    "flow_states_of": ("flow_states_pkey", ["participant_id"]),
    "change_flow_states": ("flow_states_(?:pkey|type)", ["participant_id", "flow_type"]),
    "hooks_of": ("registered_hooks_pkey", ["participant_id"]),
    "due_schedules": ("schedules_due", ["next_at"]),
    "next_schedule": ("schedules_due", ["next_at"]),
    "move_schedules": ("schedules_pkey", ["id"]),
    "insert_scheduled_jobs": ("schedules_pkey", ["id"]),
    "pause_schedules": ("schedules_pkey", ["id"]),
    "active_among": ("conversation_participants_pkey", ["id"]),
}

ROWS = """
INSERT INTO jobs (id, queue, priority, due_at, kind, status, run_at, payload, dedupe_key, participant_id, max_attempts,
    worker, created_at, updated_at)
SELECT 'j' || n, 'q' || n % 3, n % 4, now() + n * interval '1 s', 'k', 'queued', now(), '{}', 'd' || n, 'p' || n, 20,
    'w' || n, now(), now()
FROM generate_series(1, 3000) AS n;
INSERT INTO job_history (id, queue, priority, kind, status, run_at, payload, participant_id, attempt, max_attempts,
    created_at, finished_at)
SELECT 'h' || n, 'q', 0, 'k', 'done', now(), '{}', 'p' || n, 1, 20, now(), now() FROM generate_series(1, 3000) AS n;
INSERT INTO job_dedupe SELECT 'k' || n, 'h' || n, now() + n * interval '1 s' FROM generate_series(1, 3000) AS n;
INSERT INTO inbound_dedup SELECT 'c', 'n', 'message', 'w' || n, '', now() - n * interval '1 s'
FROM generate_series(1, 3000) AS n;
INSERT INTO lanes (kind, key, priority, due_at, worker)
SELECT kind, 'l' || n, n % 2, now() + n * interval '1 s', 'w' || n
FROM generate_series(1, 20000) AS n, (VALUES ('mailbox'), ('outbox')) AS kinds (kind);
INSERT INTO outbox_messages (id, participant_id, channel, recipient, recipient_kind, class, lane_key, seq, kind, body,
    status, max_attempts, created_at, updated_at)
SELECT 'm' || n, 'p' || n % 100, 'c', 'r', 'phone', 'reply', 'p' || n % 100, n, 'text', '{}', 'queued', 20, now(), now()
FROM generate_series(1, 3000) AS n;
INSERT INTO outbox_attempts (message_id, n, fence, channel, state, started_at)
SELECT 'm' || n, 1, n, 'c', 'sending', now() FROM generate_series(1, 3000) AS n;
INSERT INTO flow_states SELECT 'p' || n, 'f' || n % 3, 's', '{}', 1, now(), now() FROM generate_series(1, 50000) AS n;
INSERT INTO participant_addresses SELECT 'c', 'a' || n, 'phone', 'p' || n, now() FROM generate_series(1, 3000) AS n;
INSERT INTO parked_updates SELECT 'c', 'w' || n, 'r' || n, now() FROM generate_series(1, 3000) AS n;
INSERT INTO responses (id, participant_id, channel, number_id, message_id, sender, type, text, raw, received_at)
SELECT 'r' || n, 'p' || n, 'c', 'n', 'w' || n, 's', 'text', 't', '', now() FROM generate_series(1, 3000) AS n;
INSERT INTO mailbox_events (id, participant_id, seq, kind, payload, dedupe_key, max_attempts, created_at)
SELECT 'e' || n, 'p' || n, CASE WHEN n % 2 = 0 THEN 1 END, 'k', '{}', 'd' || n, 20, now()
FROM generate_series(1, 6000) AS n;
INSERT INTO schedules (id, version, kind, queue, priority, payload, participant_id, hour, minute, zone, misfire, paused,
    next_at, created_at, updated_at)
SELECT 's' || n, 1, 'k', 'q', 1, '{}', 'p' || n, 9, 0, 'UTC', 'run', n % 10 = 0,
    CASE WHEN n % 10 > 0 THEN now() + n * interval '1 s' END, now(), now()
FROM generate_series(1, 100000) AS n;
ANALYZE;
"""

LISTS = {
    # statement: the indexes that give its order, so that nothing is sorted but pages
    "list_jobs": ["jobs_pkey", "job_history_pkey"],
    "list_jobs_of": ["jobs_participant", "job_history_participant"],
    "list_messages": ["outbox_messages_pkey"],
    "list_messages_of": ["outbox_messages_participant"],
    "list_participants": ["conversation_participants_pkey"],
    "list_flow_states": ["flow_states_pkey"],
    "list_flow_states_of": ["flow_states_pkey"],
    "list_responses": ["responses_pkey"],
    "list_responses_of": ["responses_participant"],
    "list_schedules": ["schedules_pkey"],
    "list_schedules_of": ["schedules_participant"],
    "list_events_aside": ["mailbox_events_all_aside"],
    "list_events_aside_of": ["mailbox_events_aside"],
    "list_reports": ["recovery_reports_pkey"],
    "list_receipts": ["receipts_pkey"],
}


@pytest.fixture(scope="module")
def connection(local_url: str) -> Iterator[psycopg.Connection]:
    """Give a connection to a database for which a scan of a table costs more than anything."""
    url = new_database(local_url)
    trio.run(migrate_postgres, PostgresConfig(url=url))
    with psycopg.connect(url, autocommit=True) as opened:
        opened.execute(ROWS)
        for way in ("seqscan", "bitmapscan"):
            opened.execute(f"SET enable_{way} = off".encode())
        yield opened
    drop_database(local_url, url)


def plan_of(connection: psycopg.Connection, name: str) -> str:
    """Return the plan of a statement for whatever values."""
    names: list[str] = []

    def numbered(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    sql = re.sub(r"(?<!:):([a-z]\w*)", numbered, STATEMENTS[name])
    return "\n".join(str(line) for (line,) in connection.execute(f"EXPLAIN (GENERIC_PLAN) {sql}".encode()))


@pytest.mark.parametrize("name", HOT)
def test_hot_statement_searches_its_index(connection: psycopg.Connection, name: str) -> None:
    """By all the columns that narrow the search."""
    index, columns = HOT[name]
    plan = plan_of(connection, name)
    found = re.search(rf"using {index} on [^\n]*\n\s*Index Cond: (.*)", plan)
    assert found is not None, plan
    assert [column for column in columns if not re.search(rf"\b{column}\b", found[1])] == [], plan
    assert "Seq Scan" not in plan, plan


@pytest.mark.parametrize("name", LISTS)
def test_list_reads_its_page_and_no_more(connection: psycopg.Connection, name: str) -> None:
    """The index gives the order."""
    plan = plan_of(connection, name)
    assert re.findall(r"using (\w+) on", plan) == LISTS[name], plan
    # Of two tables, a page each is read, and both are sorted.
    assert (plan.count("Limit"), plan.count("Sort Key")) == ((1, 0) if len(LISTS[name]) == 1 else (3, 1)), plan


@pytest.mark.parametrize("name", [*ERASED, "erase_addresses", "outbox_lanes_of", "erase_strangers_responses"])
def test_erasing_reads_what_it_erases(connection: psycopg.Connection, name: str) -> None:
    """No scan of anything."""
    plan = plan_of(connection, name)
    assert ("Seq Scan" not in plan, "Index" in plan) == (True, True), plan


@pytest.mark.parametrize("name", ["due_schedules", "next_schedule", "stray_schedules", "move_schedules", "schedule"])
def test_hundred_thousand_schedules_are_not_looked_through(connection: psycopg.Connection, name: str) -> None:
    """The planner, left to itself, takes an index of theirs, and sorts nothing."""
    with connection.transaction(force_rollback=True):
        for way in ("seqscan", "bitmapscan"):
            connection.execute(f"SET LOCAL enable_{way} = on".encode())
        plan = plan_of(connection, name)
    assert re.search(r"schedules_(due|stray|pkey)", plan), plan
    assert "Seq Scan" not in plan, plan
    assert "Sort" not in plan, plan
