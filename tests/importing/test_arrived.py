"""What old rows mean here: who stays as they are, what is held, what goes on, and what cannot be understood."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from promptpipe.flows.conversation import ConversationFlow
from promptpipe.model.jobs import JobStatus
from promptpipe.model.messages import InDoubtPolicy, MessageClass, MessageStatus, Resolution
from promptpipe.model.participants import ParticipantStatus
from tests.importing.arrived import ALL, ARRIVED, ada, jobs, messages
from tests.support.first import ADA, BOB, DAY, EARLIER, NUMBERS, TARGET, counts, imported, reasons
from tests.support.people import ENROLLMENT, batch, enroll, inbound
from tests.support.work import Working

if TYPE_CHECKING:
    from tests.support.database import Database
    from tests.support.first import FirstDatabase, FirstOnSqlite


COACH = ConversationFlow(TARGET.conversation)
NINE = datetime(2026, 3, 1, 9, tzinfo=UTC)


async def test_who_is_enrolled_here_stays_as_they_are(db: Database, old_file: FirstOnSqlite) -> None:
    """Nothing of the old person of that number is imported, but what they wrote is found with them."""
    here = await enroll(db, f"+{NUMBERS[ADA]}")
    old_file.everyday()
    before = await db.store.participants.get(here)
    went = await imported(old_file, db)
    assert (await db.store.participants.get(here), await ada(db)) == (before, before)
    problem = f"participant {here} has the phone number of {ADA} here, and stays as they are"
    assert {reason for _, _, reason in reasons(went)} == {problem}
    assert {name: one.problems for name, one in went.items() if one.problems} == {
        "conversation_participants": 1,
        "registered_hooks": 1,
        "jobs": 1,
        "flow_states": 1,
        "outbox_messages": 3,
    }
    responses = (await db.store.history.responses(here, ALL)).items
    assert [response.text for response in responses] == ["hi", "hello"]


async def test_two_old_people_with_one_number_are_one_problem(db: Database, old_file: FirstOnSqlite) -> None:
    """The first is imported; a dry run says so too."""
    old_file.participant(ADA)
    old_file.participant("p_again", phone_number=f"+{NUMBERS[ADA]}")
    expected = [("conversation_participants", "p_again", f"{ADA} has the same phone number as p_again")]
    assert reasons(await imported(old_file, db, dry_run=True)) == expected
    went = await imported(old_file, db)
    assert counts(went)["conversation_participants"] == (2, 1, 0, 1)


async def test_what_was_used_up_here_is_not_brought_again(db: Database, old_file: FirstOnSqlite) -> None:
    """Though history has forgotten a timer that came, and the choice is made."""
    options = json.dumps([{"label": "Yes", "body": "Great!"}, {"label": "No", "body": "Tomorrow, then."}])
    old_file.participant()
    old_file.state()
    old_file.hook(hook_type="branch", body="Did you?", branch_options=options)
    old_file.job("state_transition", EARLIER, payload={"target_state": "FEEDBACK"})
    await imported(old_file, db)
    await db.store.inbound.ingest(batch(inbound("1", f"+{NUMBERS[ADA]}")), None)
    assert await Working(db, [COACH]).everything() == ["Great!"]
    db.change("DELETE FROM job_history")
    went = await imported(old_file, db)
    assert [counts(went)[table] for table in ("registered_hooks", "jobs")] == [(1, 0, 1, 0)] * 2
    assert await jobs(db) == []
    assert db.rows("SELECT * FROM registered_hooks WHERE handler_type = 'branch'") == []


async def test_who_was_erased_does_not_come_back(db: Database, old_file: FirstOnSqlite) -> None:
    """Nor does anything that they said, or that was to be said to them."""
    old_file.everyday()
    await imported(old_file, db)
    person = await ada(db)
    await db.store.participants.erase(person.id)
    went = await imported(old_file, db)
    assert counts(went) == {name: (read, 0, read, 0) for name, (read, *_) in ARRIVED.items()}
    for name in ("outbox_messages", "responses", "flow_states", "jobs", "registered_hooks"):
        assert db.rows(f"SELECT * FROM {name} WHERE participant_id = ?", person.id) == []


async def test_what_was_being_sent_is_held_in_doubt(db: Database, old_file: FirstOnSqlite) -> None:
    """It is never sent again by itself; an operator says what becomes of it."""
    old_file.participant()
    old_file.state()
    old_file.message("outbox_1", "lost?", "sending", locked_at=f"{DAY} 10:00:00", attempts=2)
    old_file.message("outbox_2", "next")
    await imported(old_file, db)
    held = (await messages(db))["lost?"]
    assert (held.status, held.in_doubt_policy, held.attempts) == (MessageStatus.IN_DOUBT, InDoubtPolicy.HOLD, 3)
    await db.repair()
    await db.store.recovery.restart_doubts()
    working = Working(db, [COACH])
    assert await working.everything() == ["next"]
    db.clock.advance(86_400)
    assert await working.everything() == []
    await db.store.outbox.resolve(held.id, Resolution.RESEND)
    assert await working.everything() == ["lost?"]


async def test_what_was_queued_is_sent_in_its_order(db: Database, old: FirstDatabase) -> None:
    """What was to be tried again later is, then; nobody who withdrew gets anything."""
    old.participant()
    old.participant(BOB, status="withdrawn")
    for number, text in enumerate(["one", "two", "three"]):
        old.message(f"outbox_{9 - number}", text, created_at=f"{DAY} 10:0{number}:00")
    old.message("outbox_p", "prompt", kind="prompt")
    old.message("outbox_l", "later", next_attempt_at=f"{DAY} 12:10:00", attempts=3, last_error="busy")
    old.message("outbox_b", "never", owner=BOB)
    await imported(old, db, page=2)
    working = Working(db, [COACH])
    assert await working.everything() == ["one", "prompt", "two", "three"]
    db.clock.advance(600)
    assert await working.everything() == ["later"]
    found = await messages(db)
    assert found["never"].status is MessageStatus.CANCELED
    assert found["prompt"].message_class is MessageClass.BROADCAST


async def test_history_of_messages_is_kept(db: Database, old_file: FirstOnSqlite) -> None:
    """With when they were sent or failed; a failed one can be sent again."""
    old_file.participant()
    old_file.state()
    old_file.message("outbox_s", "sent", "sent", dedupe_key="k")
    old_file.message("outbox_f", "failed", "failed", attempts=3, last_error="no such number", dedupe_key="k")
    old_file.message("outbox_c", "canceled", "canceled")
    await imported(old_file, db)
    found = await messages(db)
    assert {text: (one.status, one.last_error) for text, one in found.items()} == {
        "sent": (MessageStatus.SENT, None),
        "failed": (MessageStatus.FAILED, "no such number"),
        "canceled": (MessageStatus.CANCELED, None),
    }
    assert (found["sent"].sent_at, found["sent"].created_at) == (NINE, NINE)
    await db.store.outbox.retry(found["failed"].id)
    assert await Working(db, [COACH]).everything() == ["failed"]


async def test_seen_message_has_no_second_effect(db: Database, old_file: FirstOnSqlite) -> None:
    """Though the old service had seen it."""
    old_file.participant()
    old_file.state()
    old_file.add("inbound_dedup", message_id="wamid.seen", participant_id=NUMBERS[ADA], received_at=EARLIER)
    await imported(old_file, db)
    report = await db.store.inbound.ingest(
        batch(inbound("again", f"+{NUMBERS[ADA]}", "wamid.seen"), inbound("new", f"+{NUMBERS[ADA]}", "wamid.new")),
        ENROLLMENT,
    )
    assert (report.stored, report.duplicates, report.enrolled) == (1, 1, 0)


async def test_jobs_that_have_ended_are_history(db: Database, old_file: FirstOnSqlite) -> None:
    """Under their kinds; one that ran when the old service stopped is to run again."""
    old_file.participant()
    old_file.state()
    old_file.job("state_transition", EARLIER, id="job_1", status="done")
    old_file.job("feedback_timeout", EARLIER, id="job_2", status="failed", attempt=3, last_error="boom")
    old_file.job("feedback_followup", EARLIER, id="job_3", status="running", attempt=1)
    await imported(old_file, db)
    found = {job.kind: job for job in await jobs(db)}
    assert {kind: (job.status, job.last_error) for kind, job in found.items()} == {
        "state_transition": (JobStatus.DONE, None),
        "feedback_timeout": (JobStatus.FAILED, "boom"),
        "feedback_followup": (JobStatus.QUEUED, None),
    }
    assert found["feedback_followup"].dedupe_key == f"feedback_followup:{(await ada(db)).id}"


async def test_job_of_unknown_kind_is_kept_as_failed(db: Database, old_file: FirstOnSqlite) -> None:
    """With its payload, for whoever adds the kind can have it run then; and it is reported."""
    old_file.job("recurring_prompt", f"{DAY} 13:00:00", payload={"habit": "reading"})
    went = await imported(old_file, db)
    [job] = await jobs(db)
    assert (job.status, job.kind, job.payload["habit"]) == (JobStatus.FAILED, "recurring_prompt", "reading")
    [(_, row, reason)] = reasons(went)
    assert row == f"job_recurring_prompt_{ADA}"
    assert reason == "recurring_prompt is no kind of job here: it is kept as one that has failed"
    assert (await db.store.jobs.retry(job.id)).status is JobStatus.QUEUED


@pytest.mark.parametrize(
    ("table", "row", "reason"),
    [
        ("conversation_participants", {"phone_number": "12"}, "phone_number is no phone number in international form"),
        ("conversation_participants", {"status": "gone"}, "status is none that there is"),
        ("conversation_participants", {"name": "x" * (1 << 21)}, "name has more than 1048576 characters"),
        ("flow_states", {"flow_type": "micro_health_intervention"}, "flow_type is no flow that is here"),
        ("flow_states", {"participant_id": "p_nobody"}, "participant_id is no participant's"),
        ("registered_hooks", {"phone_number": "19"}, "phone_number is no participant's"),
        (
            "registered_hooks",
            {"hook_type": "static"},
            "hook_type is none that is here; the conversation answers instead",
        ),
        ("jobs", {"payload_json": "{"}, "payload_json is no JSON"),
        ("jobs", {"status": "sleeping"}, "status is none that there is"),
        ("jobs", {"dedupe_key": None}, "dedupe_key is not that of its participant's timer"),
        ("outbox_messages", {"payload_json": "{}"}, "payload_json has no text"),
        ("outbox_messages", {"status": "lost"}, "status is none that there is"),
        ("outbox_messages", {"participant_id": "p_nobody"}, "participant_id is no participant's"),
        ("receipts", {"status": "smelled"}, "status is none that there is"),
        ("responses", {"time": 1 << 60}, "time is no time"),
    ],
)
async def test_row_that_cannot_be_understood_is_reported_and_the_others_are_imported(
    db: Database, old_file: FirstOnSqlite, table: str, row: dict[str, object], reason: str
) -> None:
    """With its table, its id, and why."""
    old_file.everyday()
    key = {"registered_hooks": "phone_number", "inbound_dedup": "message_id"}.get(table, "id")
    [(name,)] = old_file.rows(f"SELECT {key} FROM {table} ORDER BY rowid LIMIT 1")
    for column, value in row.items():
        old_file.change(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", value, name)
    went = await imported(old_file, db)
    named = str(row.get(key, name))
    assert [problem for problem in reasons(went) if problem[:2] == (table, named)] == [
        (
            table,
            named,
            f"participant {name} cannot be read: {reason}" if table == "conversation_participants" else reason,
        )
    ]
    expected = ARRIVED[table]
    assert counts(went)[table][:2] == (expected[0], expected[1] - 1)


async def test_older_database_without_later_tables(db: Database, old_file: FirstOnSqlite) -> None:
    """Durable jobs, the outbox, marks and time zones came late to it."""
    old_file.everyday()
    for table in ("jobs", "outbox_messages", "inbound_dedup"):
        old_file.change(f"DROP TABLE {table}")
    old_file.change("ALTER TABLE conversation_participants DROP COLUMN timezone")
    went = counts(await imported(old_file, db))
    assert went["outbox_messages"] == (0, 0, 0, 0)
    assert went["flow_states"] == ARRIVED["flow_states"]
    assert (await ada(db)).timezone is None


async def test_someone_of_whom_there_is_no_conversation_gets_one(db: Database, old_file: FirstOnSqlite) -> None:
    """They are answered when they write."""
    old_file.participant()
    await imported(old_file, db)
    await db.store.inbound.ingest(batch(inbound("hello?", f"+{NUMBERS[ADA]}")), None)
    assert await Working(db, [COACH]).everything() != []


async def test_status_of_people_is_kept(db: Database, old_file: FirstOnSqlite) -> None:
    """Only active ones are talked to."""
    old_file.participant(status="paused")
    old_file.state()
    old_file.job("feedback_timeout", f"{DAY} 12:30:00")
    await imported(old_file, db)
    assert (await ada(db)).status is ParticipantStatus.PAUSED
    db.clock.advance(timedelta(hours=1).total_seconds())
    assert await Working(db, [COACH]).everything() == []


async def test_branch_hook_with_its_options_is_answered(db: Database, old_file: FirstOnSqlite) -> None:
    """Once, and from then on the conversation answers, for which the old service had no other handler."""
    options = [{"label": "Yes", "body": "Great!"}, {"label": "No", "body": "Tomorrow, then."}]
    old_file.participant()
    old_file.state()
    old_file.hook(hook_type="branch", body="Did you?", branch_options=json.dumps(options))
    await imported(old_file, db)
    await db.store.inbound.ingest(batch(inbound("2", f"+{NUMBERS[ADA]}")), None)
    working = Working(db, [COACH])
    assert await working.everything() == ["Tomorrow, then."]
    await db.store.inbound.ingest(batch(inbound("2", f"+{NUMBERS[ADA]}")), None)
    assert await working.everything() not in ([], ["Tomorrow, then."])
