"""Importing: everything arrives once, as what it means here, whatever stood between."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from promptpipe.flows.conversation import ConversationFlow
from promptpipe.importing import Import, Planner, open_source
from promptpipe.importing.tables import TABLES
from promptpipe.model.errors import PreconditionError, StoreUnavailableError
from promptpipe.model.jobs import JobStatus
from promptpipe.model.listing import JobFilter, MessageFilter, PageRequest
from promptpipe.model.messages import InDoubtPolicy, MessageClass, MessageStatus, Resolution
from promptpipe.model.participants import ParticipantStatus
from tests.support.first import ADA, BOB, DAY, EARLIER, NUMBERS, TARGET, counts, imported, reasons
from tests.support.people import ENROLLMENT, batch, enroll, inbound, phone
from tests.support.unreliable import Trouble
from tests.support.work import Working

if TYPE_CHECKING:
    from promptpipe.model.importing import ImportPage
    from promptpipe.model.jobs import Job
    from promptpipe.model.messages import OutboxMessage
    from promptpipe.model.participants import Participant
    from promptpipe.ports.importing import ImportStore
    from tests.support.database import Database
    from tests.support.first import FirstDatabase, FirstOnSqlite

ALL = PageRequest(size=50)
COACH = ConversationFlow(TARGET.conversation)
NINE = datetime(2026, 3, 1, 9, tzinfo=UTC)
ARRIVED = {
    "conversation_participants": (2, 2, 0, 0),
    "registered_hooks": (2, 2, 0, 0),
    "jobs": (2, 2, 0, 0),
    "flow_states": (2, 2, 0, 0),
    "outbox_messages": (6, 6, 0, 0),
    "inbound_dedup": (2, 2, 0, 0),
    "receipts": (2, 2, 0, 0),
    "responses": (2, 2, 0, 0),
}


async def ada(db: Database) -> Participant:
    return await db.store.participants.find(phone(f"+{NUMBERS[ADA]}"))


async def messages(db: Database) -> dict[str, OutboxMessage]:
    return {str(one.content.body): one for one in (await db.store.outbox.list(MessageFilter(), ALL)).items}


async def jobs(db: Database) -> list[Job]:
    return list((await db.store.jobs.list(JobFilter(), ALL)).items)


def contents(db: Database) -> dict[str, list[tuple[object, ...]]]:
    """Return all rows but those that say how the import went."""
    own = {"schema_migrations", "test_clock", "imports", "sequences"}
    return {
        name: sorted(db.rows(f"SELECT * FROM {name}"), key=repr)
        for name in db.tables()
        if name not in own and not name.startswith("sqlite_")
    }


async def test_everything_arrives(db: Database, old: FirstDatabase) -> None:
    """People with their numbers in E.164, and all that was said to and by them."""
    old.everyday()
    assert counts(await imported(old, db)) == ARRIVED
    person = await ada(db)
    assert (person.name, person.timezone, person.created_at) == (ADA, "America/Toronto", NINE)
    state = await db.store.participants.flow_state(person.id, "conversation")
    assert state.data["userProfile"] == {"habit_domain": "reading", "intensity": "normal"}
    assert (state.current_state, state.data["conversationState"]) == ("CONVERSATION_ACTIVE", "FEEDBACK")
    [response] = (await db.store.history.responses(person.id, ALL)).items
    assert (response.sender, response.text, response.processed_at) == (
        f"+{NUMBERS[ADA]}",
        "hello",
        response.received_at,
    )
    [receipt, _] = (await db.store.history.receipts(None, ALL)).items
    assert receipt.status is MessageStatus.DELIVERED
    assert db.rows("SELECT handler_type, expires_at FROM registered_hooks") == [("conversation", None)] * 2


async def test_progress_is_told_page_by_page(db: Database, old: FirstDatabase) -> None:
    """With how many rows a table has."""
    old.everyday()
    told: list[tuple[str, int, int]] = []
    async with open_source(old.url) as source:
        planner = Planner(source, db.store.imports, TARGET, db.clock)
        run = Import(
            source, planner, db.store.imports, page=4, told=lambda one, rows: told.append((one.table, one.read, rows))
        )
        await run.run()
    assert [one for one in told if one[0] == "outbox_messages"] == [
        ("outbox_messages", 4, 6),
        ("outbox_messages", 6, 6),
    ]


async def test_second_import_finds_everything_here(db: Database, old: FirstDatabase) -> None:
    """And brings what has been added since."""
    old.everyday()
    await imported(old, db)
    before = contents(db)
    went = await imported(old, db)
    assert counts(went) == {name: (read, 0, read, 0) for name, (read, *_) in ARRIVED.items()}
    assert contents(db) == before
    old.participant("p_eve")
    assert counts(await imported(old, db))["conversation_participants"] == (3, 1, 2, 0)


async def test_dry_run_tells_the_same_and_changes_nothing(db: Database, old: FirstDatabase) -> None:
    """Problems included."""
    old.everyday()
    old.participant("p_bad", phone_number="nobody")
    old.state("p_bad")
    old.participant("p_new", phone_number="16505559999")
    old.job("unheard_of", EARLIER)
    before = contents(db)
    dry = await imported(old, db, dry_run=True)
    assert contents(db) == before
    assert await db.store.imports.unfinished() == []
    wet = await imported(old, db)
    assert (counts(dry), reasons(dry)) == (counts(wet), reasons(wet))
    assert sum(table.problems for table in dry.values()) == 3


async def test_source_stays_as_it_is(db: Database, old_file: FirstOnSqlite) -> None:
    """Byte by byte, and alone in its folder."""
    old_file.everyday()
    before = old_file.path.read_bytes()
    await imported(old_file, db)
    assert old_file.path.read_bytes() == before
    assert [path.name for path in old_file.path.parent.glob("state.db*")] == ["state.db"]


class KilledError(Exception):
    """The end of a process."""


class Dying:
    """`ImportStore` whose process dies at a commit *after* some others: right before it, or right after."""

    def __init__(self, store: ImportStore, after: int, *, committed: bool) -> None:
        self._store = store
        self._left = after
        self._committed = committed

    async def apply(self, page: ImportPage) -> bool:
        self._left -= 1
        if self._left < 0 and not self._committed:
            raise KilledError
        done = await self._store.apply(page)
        if self._left < 0:
            raise KilledError
        return done

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


@pytest.mark.parametrize("committed", [False, True], ids=["before", "after"])
async def test_killed_at_every_page_it_goes_on(db: Database, old_file: FirstOnSqlite, *, committed: bool) -> None:
    """What arrives is what would have, in the same order, with the same counts and problems."""
    old_file.everyday()
    old_file.participant("p_bad", phone_number="nobody")
    # A page for each row, and one for each table to find that it has no more.
    pages = 1 + sum(read + 1 for read, *_ in ARRIVED.values())
    for _ in range(pages - 1):
        async with open_source(old_file.url) as source:
            store: ImportStore = Dying(db.store.imports, not committed, committed=committed)  # type: ignore[assignment]
            with pytest.raises(KilledError):
                await Import(source, Planner(source, store, TARGET, db.clock), store, page=1).run()
        await db.restart()
    went = await imported(old_file, db, page=1)
    assert counts(went) == ARRIVED | {"conversation_participants": (3, 2, 0, 1)}
    [problem] = reasons(went)
    assert problem[:2] == ("conversation_participants", "p_bad")
    assert len(db.rows("SELECT * FROM outbox_messages")) == 6
    working = Working(db, [COACH])
    await working.send()
    assert working.sent == ["to come", "to come"]


async def test_unavailable_database_ends_it_and_it_goes_on_later(db: Database, old_file: FirstOnSqlite) -> None:
    """Nothing of the page that could not be committed is there."""
    old_file.everyday()
    trouble = Trouble({"imports.apply": 1})
    async with open_source(old_file.url) as source:
        store = trouble.wrap(db.store).imports
        with pytest.raises(StoreUnavailableError):
            await Import(source, Planner(source, store, TARGET, db.clock), store).run()
    assert db.rows("SELECT * FROM conversation_participants") == []
    assert counts(await imported(old_file, db)) == ARRIVED


async def test_refuses_while_a_service_works(db: Database, old_file: FirstOnSqlite) -> None:
    """An instance that gave a sign of life lately."""
    old_file.everyday()
    await db.store.instances.beat("an-instance", "boot 1", ready=True)  # type: ignore[arg-type]
    with pytest.raises(PreconditionError, match="a service works on the database"):
        await imported(old_file, db)
    db.clock.advance(16)
    assert counts(await imported(old_file, db)) == ARRIVED


async def test_two_imports_at_once_bring_everything_once(db: Database, old_file: FirstOnSqlite) -> None:
    """The one that finds the other at work ends."""
    old_file.everyday()
    async with open_source(old_file.url) as source:
        store = db.store.imports

        class Overtaken(Planner):
            async def sheet(self, table, old):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
                sheet = await super().sheet(table, old)
                if table is TABLES[2]:
                    await imported(old_file, db)
                return sheet

        with pytest.raises(PreconditionError, match="somebody else works on the database"):
            await Import(source, Overtaken(source, store, TARGET, db.clock), store).run()
    assert len(db.rows("SELECT * FROM jobs")) == 2


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
