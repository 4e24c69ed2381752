"""Jobs: what every store promises of them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from promptpipe.model.errors import NotFoundError
from promptpipe.model.events import TimerFired
from promptpipe.model.ids import JobId
from promptpipe.model.jobs import (
    Cancel,
    Ending,
    Fail,
    Finish,
    Fire,
    JobFailure,
    JobStatus,
    NewJob,
    OnConflict,
    Retry,
    Snooze,
)
from promptpipe.model.leases import Work
from tests.support.database import LEASE_SECONDS
from tests.support.people import enroll

if TYPE_CHECKING:
    from promptpipe.model.jobs import LeasedJob
    from tests.support.database import Database

BOOM = JobFailure(type="ValueError", message="boom")


def job(db: Database, *, after: float = 0.0, **other: object) -> NewJob:
    values: dict[str, object] = {
        "id": JobId(db.new_id()),
        "kind": "test",
        "run_at": db.clock.now() + timedelta(seconds=after),
        **other,
    }
    return NewJob(**values)  # type: ignore[arg-type]


async def claim_one(db: Database) -> LeasedJob:
    claimed = await db.store.jobs.claim(db.claim())
    items = [*claimed.items, *([claimed.suspect] if claimed.suspect else [])]
    assert len(items) == 1
    return items[0]


async def status(db: Database, job_id: str) -> JobStatus:
    return (await db.store.jobs.get(JobId(job_id))).status


async def test_job_is_claimed_when_due_and_not_before(db: Database) -> None:
    """A timer fires at its time: the claim says how long it is until then."""
    new, created = await db.store.jobs.enqueue(job(db, after=5.0))
    assert created
    early = await db.store.jobs.claim(db.claim())
    assert (list(early.items), early.next_due_in) == ([], 5.0)
    assert (await db.store.jobs.claim(db.claim(sight=4.999))).next_due_in is None
    assert (await db.store.jobs.claim(db.claim(sight=5.0))).next_due_in == 5.0
    db.clock.advance(5.0)
    leased = await claim_one(db)
    assert (leased.job.id, leased.job.attempt, leased.job.status) == (new.id, 1, JobStatus.RUNNING)


async def test_enqueuing_wakes_the_job_runner(db: Database) -> None:
    """Nobody waits for a poll: the commit itself says that there is work."""
    await db.store.jobs.enqueue(job(db))
    assert db.runners.woken == [Work.JOB]


async def test_claims_take_priorities_first_then_time(db: Database) -> None:
    """Lower priority numbers go first; within one, the longest due."""
    for name, priority, after in (("c", 1, 1.0), ("b", 1, 0.0), ("a", 0, 2.0), ("d", 3, 0.0)):
        await db.store.jobs.enqueue(job(db, kind=name, priority=priority, after=after))
    db.clock.advance(3.0)
    claimed = await db.store.jobs.claim(db.claim(limit=3))
    assert [item.job.kind for item in claimed.items] == ["a", "b", "c"]


async def test_claims_are_bounded_by_the_free_slots(db: Database) -> None:
    """A claim takes no more than there is room for."""
    for _ in range(5):
        await db.store.jobs.enqueue(job(db))
    assert [len((await db.store.jobs.claim(db.claim(limit=2))).items) for _ in range(4)] == [2, 2, 1, 0]


async def test_finished_job_moves_to_history(db: Database) -> None:
    """The row leaves the hot table with its end, and stays readable."""
    await db.store.jobs.enqueue(job(db))
    leased = await claim_one(db)
    assert await db.store.jobs.finish([Ending(leased.lease, Finish())]) == frozenset()
    ended = await db.store.jobs.get(leased.job.id)
    assert (ended.status, ended.finished_at) == (JobStatus.DONE, db.clock.now())
    assert db.rows("SELECT count(*) FROM jobs") == [(0,)]


async def test_failed_attempt_is_retried_then_failed(db: Database) -> None:
    """Each attempt's error is kept; after the last, the job has failed."""
    await db.store.jobs.enqueue(job(db, max_attempts=2))
    leased = await claim_one(db)
    await db.store.jobs.finish([Ending(leased.lease, Retry(10.0, BOOM))])
    assert (await db.store.jobs.claim(db.claim())).next_due_in == 10.0
    db.clock.advance(10.0)
    again = await claim_one(db)
    assert again.job.attempt == 2
    await db.store.jobs.finish([Ending(again.lease, Retry(10.0, BOOM))])
    failed = await db.store.jobs.get(leased.job.id)
    assert (failed.status, failed.last_error) == (JobStatus.FAILED, "ValueError: boom")
    assert db.rows("SELECT attempt, message FROM job_errors ORDER BY attempt") == [(1, "boom"), (2, "boom")]


async def test_snooze_counts_no_attempt(db: Database) -> None:
    """A job that only has to wait does not use itself up."""
    await db.store.jobs.enqueue(job(db, max_attempts=1))
    for _ in range(3):
        leased = await claim_one(db)
        assert leased.job.attempt == 1
        await db.store.jobs.finish([Ending(leased.lease, Snooze(1.0))])
        db.clock.advance(1.0)


async def test_fail_ends_whatever_attempts_are_left(db: Database) -> None:
    """Failing for good is final."""
    await db.store.jobs.enqueue(job(db))
    leased = await claim_one(db)
    await db.store.jobs.finish([Ending(leased.lease, Fail(BOOM))])
    assert await status(db, leased.job.id) is JobStatus.FAILED


async def test_stale_holder_cannot_finish(db: Database) -> None:
    """A runner that lost its lease must not overwrite the new holder."""
    await db.store.jobs.enqueue(job(db))
    old = await claim_one(db)
    db.clock.advance(LEASE_SECONDS)
    new = (await db.store.jobs.claim(db.claim(worker="other"))).items[0]
    for outcome in (Finish(), Retry(0.0, BOOM), Snooze(0.0), Fail(BOOM), Cancel()):
        assert await db.store.jobs.finish([Ending(old.lease, outcome)]) == {old.lease}
    assert (await db.store.leases.extend([old.lease], 30.0)).lost == {old.lease}
    assert await status(db, new.job.id) is JobStatus.RUNNING
    assert await db.store.jobs.finish([Ending(new.lease, Finish())]) == frozenset()


async def test_fence_of_a_deleted_row_fits_no_row_made_again(db: Database) -> None:
    """Fences are never reused: the same id, claimed as often, has another fence."""
    first = job(db)
    await db.store.jobs.enqueue(first)
    old = await claim_one(db)
    await db.store.jobs.finish([Ending(old.lease, Finish())])
    db.change("DELETE FROM job_history")
    await db.store.jobs.enqueue(first)
    new = await claim_one(db)
    assert (new.lease.key, new.job.attempt) == (old.lease.key, old.job.attempt)
    assert await db.store.jobs.finish([Ending(old.lease, Finish())]) == {old.lease}


async def test_worker_is_never_handed_what_it_still_holds(db: Database) -> None:
    """An overdue lease of one's own is extended, not claimed a second time."""
    await db.store.jobs.enqueue(job(db))
    leased = await claim_one(db)
    db.clock.advance(LEASE_SECONDS + 1)
    claimed = await db.store.jobs.claim(db.claim(held=[leased.job.id]))
    assert (list(claimed.items), claimed.suspect) == ([], None)
    assert (await db.store.leases.extend([leased.lease], 30.0)).lost == frozenset()


async def test_what_a_worker_holds_is_not_claimed_even_when_it_was_given_back(db: Database) -> None:
    """As long as a task of this process works on it, this process does not start a second."""
    await db.store.jobs.enqueue(job(db))
    leased = await claim_one(db)
    await db.store.leases.give_back(db.worker)
    assert not (await db.store.jobs.claim(db.claim(held=[leased.job.id]))).items
    assert (await db.store.jobs.claim(db.claim())).items


async def test_finish_reports_each_lost_lease_and_keeps_the_others(db: Database) -> None:
    """One lost lease in a batch costs its neighbours nothing."""
    for _ in range(3):
        await db.store.jobs.enqueue(job(db))
    claimed = (await db.store.jobs.claim(db.claim())).items
    lost = claimed[1]
    await db.store.jobs.finish([Ending(lost.lease, Finish())])
    assert await db.store.jobs.finish([Ending(item.lease, Finish()) for item in claimed]) == {lost.lease}
    assert {await status(db, item.job.id) for item in claimed} == {JobStatus.DONE}


# ---------------------------------------------------------------- dedupe keys


async def test_keep_returns_the_live_job(db: Database) -> None:
    """The same key twice makes one job, with the first one's time and payload."""
    first, _ = await db.store.jobs.enqueue(job(db, dedupe_key="k", payload={"n": 1}))
    second, created = await db.store.jobs.enqueue(job(db, after=9.0, dedupe_key="k", payload={"n": 2}))
    assert (second, created) == (first, False)


async def test_key_is_free_once_the_job_has_ended(db: Database) -> None:
    """A finished or failed job blocks nobody."""
    for outcome in (Finish(), Fail(BOOM)):
        _, created = await db.store.jobs.enqueue(job(db, dedupe_key="k"))
        assert created
        await db.store.jobs.finish([Ending((await claim_one(db)).lease, outcome)])


async def test_replace_gives_new_time_and_payload(db: Database) -> None:
    """Replacing keeps the id and counts attempts anew."""
    first, _ = await db.store.jobs.enqueue(job(db, dedupe_key="k"))
    await db.store.jobs.finish([Ending((await claim_one(db)).lease, Retry(0.0, BOOM))])
    second, created = await db.store.jobs.enqueue(
        job(db, after=60.0, dedupe_key="k", payload={"n": 2}, on_conflict=OnConflict.REPLACE)
    )
    assert (second.id, created, second.attempt, second.payload) == (first.id, False, 0, {"n": 2})
    assert second.run_at == db.clock.now() + timedelta(seconds=60)


async def test_replace_of_a_running_job_takes_it_from_its_worker(db: Database) -> None:
    """The old worker's lease is lost; the job runs again with what replaced it."""
    await db.store.jobs.enqueue(job(db, dedupe_key="k"))
    old = await claim_one(db)
    await db.store.jobs.enqueue(job(db, dedupe_key="k", payload={"n": 2}, on_conflict=OnConflict.REPLACE))
    assert await db.store.jobs.finish([Ending(old.lease, Finish())]) == {old.lease}
    new = await claim_one(db)
    assert (new.job.attempt, new.job.payload) == (1, {"n": 2})


async def test_keep_on_a_running_job_runs_it_again(db: Database) -> None:
    """What was asked for while it ran is not lost: finishing queues the row anew."""
    first, _ = await db.store.jobs.enqueue(job(db, dedupe_key="k", payload={"n": 1}))
    leased = await claim_one(db)
    _, created = await db.store.jobs.enqueue(job(db, after=7.0, dedupe_key="k", payload={"n": 2}))
    assert not created
    await db.store.jobs.finish([Ending(leased.lease, Finish())])
    assert (await db.store.jobs.claim(db.claim())).next_due_in == 7.0
    db.clock.advance(7.0)
    again = await claim_one(db)
    assert (again.job.id, again.job.payload, again.job.attempt) == (first.id, {"n": 2}, 1)


# ---------------------------------------------------------------- cancel


async def test_cancel_ends_a_queued_job(db: Database) -> None:
    """A canceled job never runs."""
    new, _ = await db.store.jobs.enqueue(job(db))
    assert (await db.store.jobs.cancel(new.id)).status is JobStatus.CANCELED
    assert not (await db.store.jobs.claim(db.claim())).items


async def test_cancel_of_a_running_job_reaches_its_worker(db: Database) -> None:
    """The worker learns of it when it extends; the key stays taken until the job ends."""
    new, _ = await db.store.jobs.enqueue(job(db, dedupe_key="k"))
    leased = await claim_one(db)
    assert (await db.store.jobs.cancel(new.id)).status is JobStatus.RUNNING
    assert (await db.store.leases.extend([leased.lease], 30.0)).cancel_requested == {leased.lease}
    assert (await db.store.jobs.enqueue(job(db, dedupe_key="k")))[1] is False
    db.change("UPDATE jobs SET rerun_at = NULL")
    await db.store.jobs.finish([Ending(leased.lease, Cancel())])
    assert await status(db, new.id) is JobStatus.CANCELED


async def test_canceled_job_whose_worker_vanished_does_not_run_again(db: Database) -> None:
    """The request to cancel outlives the worker."""
    new, _ = await db.store.jobs.enqueue(job(db))
    await claim_one(db)
    await db.store.jobs.cancel(new.id)
    await db.restart()
    await db.repair()
    assert not (await db.store.jobs.claim(db.claim())).items
    assert await status(db, new.id) is JobStatus.CANCELED


async def test_canceled_job_is_not_retried(db: Database) -> None:
    """A failure after the request to cancel ends the job."""
    new, _ = await db.store.jobs.enqueue(job(db))
    leased = await claim_one(db)
    await db.store.jobs.cancel(new.id)
    await db.store.jobs.finish([Ending(leased.lease, Retry(0.0, BOOM))])
    assert await status(db, new.id) is JobStatus.CANCELED


async def test_unknown_job_is_not_found(db: Database) -> None:
    """Asking for what is not there is an error of its own."""
    with pytest.raises(NotFoundError):
        await db.store.jobs.get(JobId("nope"))


# ---------------------------------------------------------------- timers


async def test_timer_fires_into_the_mailbox_once(db: Database) -> None:
    """One commit ends the job and appends its event; a second firing under the same lease does neither."""
    person = await enroll(db)
    await db.store.jobs.enqueue(job(db, participant_id=person, dedupe_key="t", payload={"n": 1}))
    leased = await claim_one(db)
    assert await db.store.jobs.finish([Ending(leased.lease, Fire())]) == frozenset()
    assert await db.store.jobs.finish([Ending(leased.lease, Fire())]) == {leased.lease}
    [delivery] = (await db.store.mailboxes.claim(db.claim())).items
    assert delivery.event.event == TimerFired(job_id=leased.job.id, job_kind="test", dedupe_key="t", payload={"n": 1})
    assert await status(db, leased.job.id) is JobStatus.DONE
    assert db.rows("SELECT count(*) FROM mailbox_events") == [(1,)]


async def test_timer_canceled_while_it_was_about_to_fire_does_not(db: Database) -> None:
    """Between claim and firing, a cancel wins: the fence no longer matches, and no event is made."""
    person = await enroll(db)
    new, _ = await db.store.jobs.enqueue(job(db, participant_id=person))
    leased = await claim_one(db)
    await db.store.jobs.cancel(new.id)
    assert await db.store.jobs.finish([Ending(leased.lease, Fire())]) == {leased.lease}
    assert not (await db.store.mailboxes.claim(db.claim())).items


async def test_key_stays_taken_while_the_fired_event_waits(db: Database) -> None:
    """Until the flow has handled a timer, its key is live: keep returns it, replace removes the event."""
    person = await enroll(db)
    first, _ = await db.store.jobs.enqueue(job(db, participant_id=person, dedupe_key="t"))
    await db.store.jobs.finish([Ending((await claim_one(db)).lease, Fire())])
    kept, created = await db.store.jobs.enqueue(job(db, participant_id=person, dedupe_key="t"))
    assert (kept.id, created) == (first.id, False)
    replaced, created = await db.store.jobs.enqueue(
        job(db, after=60.0, participant_id=person, dedupe_key="t", on_conflict=OnConflict.REPLACE)
    )
    assert (replaced.id == first.id, created) == (False, True)
    assert not (await db.store.mailboxes.claim(db.claim())).items


# ---------------------------------------------------------------- poison


async def test_attempt_counts_when_it_is_claimed(db: Database) -> None:
    """Work that kills its process every time ends as failed, without having failed once in an orderly way."""
    new, _ = await db.store.jobs.enqueue(job(db, max_attempts=3))
    for _ in range(3):
        await claim_one(db)
        await db.restart()
        await db.repair()
    claimed = await db.store.jobs.claim(db.claim())
    assert (list(claimed.items), claimed.suspect) == ([], None)
    assert await status(db, new.id) is JobStatus.FAILED


async def test_suspects_run_alone_after_the_others(db: Database) -> None:
    """Once two leases in a row ended without a word, a job is claimed by itself, and only when room is left."""
    for _ in range(3):
        await db.store.jobs.enqueue(job(db))
    for _ in range(2):
        assert len((await db.store.jobs.claim(db.claim())).items) == 3
        await db.restart()
        await db.repair()
    fresh, _ = await db.store.jobs.enqueue(job(db))
    assert (await db.store.jobs.claim(db.claim(suspect=False))).suspect is None
    db.change("UPDATE jobs SET due_at = created_at, worker = NULL, status = 'queued' WHERE id = ?", fresh.id)
    full = await db.store.jobs.claim(db.claim(limit=1))
    assert ([item.job.id for item in full.items], full.suspect) == ([fresh.id], None)
    alone = await db.store.jobs.claim(db.claim())
    assert (list(alone.items), alone.suspect is not None) == ([], True)


async def test_orderly_end_clears_the_suspicion(db: Database) -> None:
    """A job that comes to a word again is one like the others."""
    await db.store.jobs.enqueue(job(db))
    for _ in range(2):
        await claim_one(db)
        await db.restart()
        await db.repair()
    suspect = (await db.store.jobs.claim(db.claim())).suspect
    assert suspect is not None
    await db.store.jobs.finish([Ending(suspect.lease, Retry(0.0, BOOM))])
    assert len((await db.store.jobs.claim(db.claim())).items) == 1


async def test_repair_makes_running_jobs_due_and_leaves_our_own(db: Database) -> None:
    """Every lease of another process is stale; running recovery again later takes nothing from those at work."""
    await db.store.jobs.enqueue(job(db))
    await claim_one(db)
    assert await db.store.recovery.requeue_stale_running_jobs() == 0
    await db.restart()
    assert await db.store.recovery.requeue_stale_running_jobs() == 1
    assert await db.store.recovery.requeue_stale_running_jobs() == 0
    assert (await claim_one(db)).job.attempt == 2


async def test_give_back_counts_no_attempt(db: Database) -> None:
    """A drained worker's jobs are due at once, as if it had never taken them."""
    await db.store.jobs.enqueue(job(db, max_attempts=1))
    await claim_one(db)
    assert await db.store.leases.give_back(db.worker) == 1
    assert (await claim_one(db)).job.attempt == 1
