"""What recovery finds and repairs, and that doing it again changes nothing."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

from promptpipe.model.decisions import Hook
from promptpipe.model.events import TimerLost
from promptpipe.model.ids import JobId, ParticipantId
from promptpipe.model.jobs import Ending, Fire, NewJob
from promptpipe.model.listing import PageRequest
from promptpipe.model.recovery import ComponentReport, LostTimer, RecoveryReport, Span
from tests.support.people import ADA, BOB, enroll

if TYPE_CHECKING:
    from tests.support.database import Database

KEY = "dailyPromptReminderTimerID"
EVERYBODY = Span("", "~", 0)


async def refer_to(db: Database, person: ParticipantId, job_id: str) -> None:
    """Let a participant's state name a job."""
    db.change("UPDATE flow_states SET state_data = ? WHERE participant_id = ?", json.dumps({KEY: job_id}), person)


async def lost(db: Database) -> list[LostTimer]:
    return list(await db.store.recovery.lost_timers("echo", KEY, EVERYBODY))


async def test_only_active_participants_without_a_handler_are_found(db: Database) -> None:
    """Someone who has one, or who is paused, needs no repair."""
    ada, bob = await enroll(db, ADA), await enroll(db, BOB)
    carl = await enroll(db, "+16505550000")
    db.change("DELETE FROM registered_hooks WHERE participant_id <> ?", bob)
    db.change("UPDATE conversation_participants SET status = 'paused' WHERE id = ?", carl)
    recovery = db.store.recovery
    assert await recovery.without_handler("echo", EVERYBODY) == [ada]
    hook = Hook(participant_id=ada, handler_type="echo", flow_type="echo")
    assert [await recovery.register_hook(hook), await recovery.register_hook(hook)] == [True, False]
    assert await recovery.without_handler("echo", EVERYBODY) == []
    assert await recovery.active("echo") == 2


async def test_spans_cover_every_active_participant_once(db: Database) -> None:
    """Each goes on after the last of the one before, and what is looked for in one is found in no other."""
    people = sorted([await enroll(db, f"+1650555{number:04}") for number in range(6)])
    db.change("DELETE FROM registered_hooks")
    db.change("UPDATE conversation_participants SET status = 'paused' WHERE id = ?", people.pop(3))
    found, sizes, last = list[ParticipantId](), [], ""
    while span := await db.store.recovery.span("echo", last, 2):
        found += await db.store.recovery.without_handler("echo", span)
        sizes.append(span.count)
        last = span.last
    assert (found, sizes) == (people, [2, 2, 1])


async def test_timer_that_is_live_or_about_to_be_handled_is_not_lost(db: Database) -> None:
    """A queued job, a running one, and a fired one whose event waits all stand for their timer."""
    person = await enroll(db)
    job_id = JobId(db.new_id())
    await db.store.jobs.enqueue(
        NewJob(id=job_id, kind="t", run_at=db.clock.now() + timedelta(seconds=1), participant_id=person)
    )
    await refer_to(db, person, job_id)
    assert await lost(db) == []
    db.clock.advance(1.0)
    [leased] = (await db.store.jobs.claim(db.claim())).items
    assert await lost(db) == []
    await db.store.jobs.finish([Ending(leased.lease, Fire())])
    assert await lost(db) == []


async def test_timer_that_is_gone_is_lost(db: Database) -> None:
    """A job that is nowhere: hand-edited, imported, or older data."""
    person = await enroll(db)
    await refer_to(db, person, "gone")
    [timer] = await lost(db)
    assert (timer.participant_id, timer.job_id, timer.ended, timer.state_data) == (person, "gone", False, {KEY: "gone"})


async def test_timer_that_has_ended_is_known_as_such(db: Database) -> None:
    """A canceled job leaves a reference that is only to be cleared."""
    person = await enroll(db)
    job_id = JobId(db.new_id())
    await db.store.jobs.enqueue(NewJob(id=job_id, kind="t", run_at=db.clock.now(), participant_id=person))
    await db.store.jobs.cancel(job_id)
    await refer_to(db, person, job_id)
    [timer] = await lost(db)
    assert timer.ended


async def test_lost_timer_is_reported_to_the_mailbox_once(db: Database) -> None:
    """Recovering again, before the flow has handled the first report, adds no second."""
    person = await enroll(db)
    await refer_to(db, person, "gone")
    [timer] = await lost(db)
    recovery = db.store.recovery
    assert await recovery.report_lost_timer(timer, "echo", KEY, 60.0)
    assert not await recovery.report_lost_timer(timer, "echo", KEY, 60.0)
    assert await lost(db) == []
    [delivery] = (await db.store.mailboxes.claim(db.claim())).items
    assert delivery.event.event == TimerLost(flow_type="echo", job_id=JobId("gone"), data_key=KEY, remaining=60.0)


async def test_reports_are_kept_and_the_newest_is_read(db: Database) -> None:
    """What recovery came to can be asked for later."""
    assert await db.store.recovery.last_report() is None
    for failed in (0, 2):
        component = ComponentReport(
            name="c",
            checked=5,
            restored=1,
            failed=failed,
            repairs=(("q", "what"),),
            failures=(("p", "why"),) * failed,
            seconds=0.5,
        )
        report = RecoveryReport(
            started_at=db.clock.now(), finished_at=db.clock.now() + timedelta(seconds=1), components=(component,)
        )
        await db.store.recovery.save_report(report)
    assert await db.store.recovery.last_report() == report
    assert report.failed == 2
    newest = await db.store.recovery.reports(PageRequest(size=1))
    assert newest.items == (report,)
    [older] = (await db.store.recovery.reports(PageRequest(size=1, after=newest.last))).items
    assert older.failed == 0


async def test_probe_commits(db: Database) -> None:
    """A probe that returns proves that the next commit can succeed."""
    await db.store.probe()
