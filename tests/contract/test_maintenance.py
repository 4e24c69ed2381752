"""What has had its time goes, a batch at a time; nothing else does."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest

from promptpipe.model.errors import NotFoundError
from promptpipe.model.ids import JobId
from promptpipe.model.jobs import Ending, Fail, Finish, JobFailure, JobStatus, NewJob, Retry
from promptpipe.ports.maintenance import BATCH
from tests.contract.test_races import all_at_once
from tests.support.people import ENROLLMENT, batch, inbound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from promptpipe.model.jobs import Outcome
    from tests.support.database import Database

DAY = timedelta(days=1)
FAILURE = JobFailure(type="ValueError", message="boom")


async def ended(db: Database, outcome: Outcome | None, number: int = 1) -> list[JobId]:
    """Return jobs that have ended; canceled without an *outcome*."""
    new = [NewJob(id=JobId(db.new_id()), kind="test", run_at=db.clock.now()) for _ in range(number)]
    await db.store.jobs.enqueue_many(new)
    if outcome is None:
        for job in new:
            await db.store.jobs.cancel(job.id)
    else:
        leased = (await db.store.jobs.claim(db.claim(number))).items
        await db.store.jobs.finish([Ending(item.lease, outcome) for item in leased])
    return [job.id for job in new]


async def prune(
    db: Database, status: JobStatus = JobStatus.DONE, age: timedelta = DAY, *, limit: int = BATCH
) -> list[int]:
    """Prune the history of *status*, and return how many jobs were left after each batch."""
    left = []
    after: object = None
    while (after := await db.store.maintenance.prune_history(status, age, after, limit=limit)) is not None:
        left += [row[0] for row in db.rows("SELECT count(*) FROM job_history")]
    return left


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(JobStatus.DONE, Finish()), (JobStatus.FAILED, Fail(FAILURE)), (JobStatus.CANCELED, None)],
)
async def test_history_is_kept_for_its_time(db: Database, status: JobStatus, outcome: Outcome | None) -> None:
    """To the microsecond, and by what became of the job; live jobs stay whatever their age."""
    [old] = await ended(db, outcome)
    others = [
        job
        for other, its in ((JobStatus.DONE, Finish()), (JobStatus.FAILED, Fail(FAILURE)), (JobStatus.CANCELED, None))
        if other is not status
        for job in await ended(db, its)
    ]
    live, _ = await db.store.jobs.enqueue(NewJob(id=JobId(db.new_id()), kind="test", run_at=db.clock.now() + 99 * DAY))
    db.clock.advance(DAY.total_seconds())
    assert await prune(db, status) == []
    db.clock.advance(0.001)
    assert await prune(db, status) == [2]
    with pytest.raises(NotFoundError):
        await db.store.jobs.get(old)
    for job_id in (*others, live.id):
        await db.store.jobs.get(job_id)


async def test_time_begins_when_the_job_ends(db: Database) -> None:
    """However long ago it was made."""
    new = NewJob(id=JobId(db.new_id()), kind="test", run_at=db.clock.now())
    await db.store.jobs.enqueue(new)
    db.clock.advance(2 * DAY.total_seconds())
    [leased] = (await db.store.jobs.claim(db.claim())).items
    await db.store.jobs.finish([Ending(leased.lease, Finish())])
    db.clock.advance(DAY.total_seconds())
    assert await prune(db) == []
    db.clock.advance(0.001)
    assert await prune(db) == [0]


async def test_pruning_goes_on_batch_by_batch(db: Database) -> None:
    """The oldest first, and each batch where the one before ended."""
    for _ in range(4):
        await ended(db, Finish(), 2)
        db.clock.advance(1.0)
    newest = await ended(db, Finish(), 2)
    db.clock.advance(DAY.total_seconds())
    assert await prune(db, limit=3) == [7, 4, 2]
    for job_id in newest:
        await db.store.jobs.get(job_id)


async def test_many_that_ended_at_once_are_pruned_all(db: Database) -> None:
    """More than a batch of the same microsecond."""
    await ended(db, Finish(), 10)
    db.clock.advance(2 * DAY.total_seconds())
    assert await prune(db, limit=3) == [7, 4, 1, 0]


async def test_errors_go_with_their_job(db: Database) -> None:
    """And those of others stay."""
    await ended(db, Fail(FAILURE))
    db.clock.advance(2 * DAY.total_seconds())
    [kept] = await ended(db, Fail(FAILURE))
    await prune(db, JobStatus.FAILED)
    assert db.rows("SELECT job_id FROM job_errors") == [(kept,)]


async def test_newest_errors_of_a_job_are_kept(db: Database) -> None:
    """Twenty of them, however often it failed, be it at the same moment; of another job, its own."""
    for key, pause in (("slow", 1.0), ("quick", 0.0)):
        job = NewJob(id=JobId(db.new_id()), kind="t", run_at=db.clock.now(), max_attempts=100, dedupe_key=key)
        await db.store.jobs.enqueue(job)
        for _ in range(25):
            [leased] = (await db.store.jobs.claim(db.claim())).items
            await db.store.jobs.finish([Ending(leased.lease, Retry(0.0, FAILURE))])
            db.clock.advance(pause)
        await db.store.jobs.cancel(job.id)
        kept = db.rows("SELECT attempt FROM job_errors WHERE job_id = ? ORDER BY attempt", job.id)
        assert kept == [(attempt,) for attempt in range(6, 26)]


async def test_marks_of_what_webhooks_brought_are_kept_for_their_time(db: Database) -> None:
    """While they are, a repetition has no effect."""
    post = batch(inbound("hi", provider_id="wamid.1"))
    await db.store.inbound.ingest(post, ENROLLMENT)
    db.clock.advance(DAY.total_seconds())
    assert await db.store.maintenance.prune_inbound_marks(DAY, None) is None
    assert (await db.store.inbound.ingest(post, ENROLLMENT)).duplicates == 1
    db.clock.advance(0.001)
    pruned = await db.store.maintenance.prune_inbound_marks(DAY, None)
    assert pruned is not None
    assert await db.store.maintenance.prune_inbound_marks(DAY, pruned) is None
    assert db.rows("SELECT count(*) FROM inbound_dedup") == [(0,)]


async def test_many_instances_prune_together(db: Database) -> None:
    """None waits for another, nor for a job that is being retried; in the end everything is gone but that."""
    jobs = await ended(db, Fail(FAILURE), 60)
    db.clock.advance(2 * DAY.total_seconds())
    calls: list[Callable[[], Awaitable[object]]] = [partial(prune, db, JobStatus.FAILED, limit=5) for _ in range(4)]

    async def retry() -> None:
        try:
            await db.store.jobs.retry(jobs[-1])
        except NotFoundError:
            retried.clear()

    retried = [jobs[-1]]
    await all_at_once([retry, *calls])
    await prune(db, JobStatus.FAILED)
    assert db.rows("SELECT count(*) FROM job_history") == [(0,)]
    assert db.rows("SELECT id FROM jobs") == [(job_id,) for job_id in retried]
