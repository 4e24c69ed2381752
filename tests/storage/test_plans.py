"""Every hot statement uses the index that was made for it, however many rows there are."""

from __future__ import annotations

import re
import sqlite3
from typing import TYPE_CHECKING

import pytest

from promptpipe.storage.sqlite.migrations import migrate
from promptpipe.storage.sqlite.transaction import STATEMENTS
from promptpipe.storage.transactions.erasing import ERASED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOT: dict[str, str | tuple[str, ...]] = {
    # statement: the index, and how much of it narrows the search; or several that are as good
    "claim_lanes": "lanes_due (kind=? AND priority=? AND due_at<?)",
    "next_due_lane": "lanes_due (kind=? AND priority=? AND due_at>? AND due_at<?)",
    "extend_lanes": "PRIMARY KEY (kind=? AND key=?)",
    "held_lanes": "PRIMARY KEY (kind=? AND key=?)",
    "keep_lanes": "PRIMARY KEY (kind=? AND key=?)",
    "release_lanes": "PRIMARY KEY (kind=? AND key=?)",
    "set_lane_due": "PRIMARY KEY (kind=? AND key=?)",
    "lanes_of_worker": "lanes_worker (worker=?)",
    "claim_jobs": "jobs_due (queue=? AND priority=? AND due_at<?)",
    "next_due_job": "jobs_due (queue=? AND priority=? AND due_at>? AND due_at<?)",
    "finish_jobs": "sqlite_autoindex_jobs_1 (id=?)",
    "taken_keys": "jobs_dedupe (dedupe_key=?)",
    "held_jobs": "sqlite_autoindex_jobs_1 (id=?)",
    "extend_jobs": "sqlite_autoindex_jobs_1 (id=?)",
    "jobs_by_key": "jobs_dedupe (dedupe_key=?)",
    "cancel_jobs": "sqlite_autoindex_jobs_1 (id=?)",
    "prune_done_jobs": "sqlite_autoindex_job_history_1 (id>? AND id<?)",
    "prune_ended_jobs": "job_history_ended (status=? AND finished_at>? AND finished_at<?)",
    "prune_job_keys": "job_dedupe_until (until>? AND until<?)",
    "prune_inbound_marks": "inbound_dedup_seen (seen_at>? AND seen_at<?)",
    "head_events": "mailbox_events_order (participant_id=? AND seq>?)",
    "hand_out_events": "sqlite_autoindex_mailbox_events_1 (id=?)",
    "delete_events": "sqlite_autoindex_mailbox_events_1 (id=?)",
    "mark_responses_processed": "sqlite_autoindex_responses_1 (id=?)",
    "waiting_timers": "mailbox_events_dedupe (dedupe_key=?)",
    "head_message": "outbox_messages_order (lane_key=? AND seq>?)",
    "head_messages": "outbox_messages_order (lane_key=? AND seq>?)",
    "mark_sending": "sqlite_autoindex_outbox_messages_1 (id=?)",
    "messages_on_their_way": "PRIMARY KEY (message_id=? AND n=?)",
    "known_among": "PRIMARY KEY (channel=? AND provider_id=?)",
    "accept_attempts": "PRIMARY KEY (message_id=? AND n=?)",
    "accept_messages": "sqlite_autoindex_outbox_messages_1 (id=?)",
    "message_by_key": "outbox_messages_dedupe (dedupe_key=?)",
    "postponed_messages": "outbox_messages_not_before (not_before<?)",
    "next_postponed": "outbox_messages_not_before (not_before>?)",
    "attempt": "PRIMARY KEY (message_id=? AND n=?)",
    "attempt_by_provider_id": "outbox_attempts_provider (channel=? AND provider_id=?)",
    "restart_doubts": "outbox_messages_in_doubt (doubt_until>?)",
    "owners_of_addresses": "PRIMARY KEY (channel=? AND address=?)",
    "writers": "PRIMARY KEY (channel=? AND address=?)",
    "addresses_of": "participant_addresses_owner (participant_id=?)",
    "participants": "sqlite_autoindex_conversation_participants_1 (id=?)",
    "flow_states_of": "sqlite_autoindex_flow_states_1 (participant_id=?)",
    "change_flow_states": (
        "sqlite_autoindex_flow_states_1 (participant_id=? AND flow_type=?)",
        "flow_states_type (flow_type=? AND participant_id=?)",
    ),
    "hooks_of": "PRIMARY KEY (participant_id=?)",
    "due_schedules": "schedules_due (next_at<?)",
    "next_schedule": "schedules_due (next_at>?)",
    "move_schedules": "sqlite_autoindex_schedules_1 (id=?)",
    "insert_scheduled_jobs": "sqlite_autoindex_schedules_1 (id=?)",
    "pause_schedules": "sqlite_autoindex_schedules_1 (id=?)",
    "active_among": "sqlite_autoindex_conversation_participants_1 (id=?)",
}


LISTS = {
    # statement: the index that gives its order, so that nothing is sorted and nothing is read that is not returned
    "list_jobs": ["sqlite_autoindex_jobs_1 (id<?)", "sqlite_autoindex_job_history_1 (id<?)"],
    "list_jobs_of": [
        "jobs_participant (participant_id=? AND id<?)",
        "job_history_participant (participant_id=? AND id<?)",
    ],
    "list_messages": ["sqlite_autoindex_outbox_messages_1 (id<?)"],
    "list_messages_of": ["outbox_messages_participant (participant_id=? AND id<?)"],
    "list_participants": ["sqlite_autoindex_conversation_participants_1 (id<?)"],
    "list_flow_states": ["sqlite_autoindex_flow_states_1 ((participant_id,flow_type)<(?,?))"],
    "list_flow_states_of": ["sqlite_autoindex_flow_states_1 (participant_id=?)"],
    "list_responses": ["sqlite_autoindex_responses_1 (id<?)"],
    "list_responses_of": ["responses_participant (participant_id=? AND id<?)"],
    "list_schedules": ["sqlite_autoindex_schedules_1 (id<?)"],
    "list_schedules_of": ["schedules_participant (participant_id=? AND id<?)"],
    "list_events_aside": ["mailbox_events_all_aside (id<?)"],
    "list_events_aside_of": ["mailbox_events_aside (participant_id=? AND id<?)"],
    "list_reports": ["sqlite_autoindex_recovery_reports_1 (id<?)"],
    "list_receipts": ["sqlite_autoindex_receipts_1 (id<?)"],
}


def plan_of(connection: sqlite3.Connection, name: str) -> list[str]:
    """Return the steps of a statement, whatever its values."""
    steps = []
    for sql in STATEMENTS[name]:
        values = dict.fromkeys(re.findall(r":(\w+)", sql), "1")
        steps += [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    return steps


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Give an empty database: without statistics, a plan does not depend on the rows."""
    opened = sqlite3.connect(tmp_path / "plans.db", isolation_level=None)
    migrate(opened, 0)
    yield opened
    opened.close()


@pytest.mark.parametrize("name", HOT)
def test_hot_statement_searches_its_index(connection: sqlite3.Connection, name: str) -> None:
    """No scan of a table of ours."""
    plan = plan_of(connection, name)
    ours = [step for step in plan if "VIRTUAL TABLE" not in step and step.startswith(("SEARCH", "SCAN"))]
    # What a part of the same statement has found may be read.
    assert [step for step in ours if step.startswith("SCAN") and not step.startswith("SCAN (subquery-")] == [], plan
    good = HOT[name]
    assert [step for step in ours if step.endswith(good)] != [], plan


@pytest.mark.parametrize("name", LISTS)
def test_list_reads_its_page_and_no_more(connection: sqlite3.Connection, name: str) -> None:
    """The index gives the order."""
    plan = plan_of(connection, name)
    assert [step.split(" USING ")[1].removeprefix("INDEX ") for step in plan if "USING" in step] == LISTS[name], plan
    assert [step for step in plan if "TEMP B-TREE" in step or step.startswith("SCAN")] == []


@pytest.mark.parametrize("name", [*ERASED, "erase_addresses", "outbox_lanes_of", "erase_strangers_responses"])
def test_erasing_reads_what_it_erases(connection: sqlite3.Connection, name: str) -> None:
    """No scan of anything."""
    assert [step for step in plan_of(connection, name) if step.startswith("SCAN") and "json_each" not in step] == []


def test_looking_for_strays_reads_strays_alone(connection: sqlite3.Connection) -> None:
    """Their index holds no other schedule."""
    assert plan_of(connection, "stray_schedules") == ["SCAN schedules USING INDEX schedules_stray"]
