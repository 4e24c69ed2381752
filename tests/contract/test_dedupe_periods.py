"""Keys that stay taken for a while, whatever became of their job."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest

from promptpipe.model.errors import AlreadyExistsError, NotFoundError
from promptpipe.model.ids import JobId
from promptpipe.model.jobs import Ending, Fail, Finish, Fire, JobFailure, JobStatus, NewJob, OnConflict, Retry
from tests.contract.test_races import MANY, all_at_once
from tests.support.people import enroll

if TYPE_CHECKING:
    from promptpipe.model.jobs import Outcome
    from tests.support.database import Database

HOUR = timedelta(hours=1)


def job(db: Database, period: timedelta | None = HOUR, key: str | None = "k", **other: object) -> NewJob:
    at = db.clock.now()
    return NewJob(id=JobId(db.new_id()), kind="t", run_at=at, dedupe_key=key, dedupe_period=period, **other)  # type: ignore[arg-type]


async def end(db: Database, outcome: Outcome | None = None) -> None:
    """End whatever is due."""
    leased = (await db.store.jobs.claim(db.claim())).items
    assert leased
    await db.store.jobs.finish([Ending(item.lease, outcome or Finish()) for item in leased])


@pytest.mark.parametrize("outcome", [Finish(), Fail(JobFailure(type="E", message="m")), None])
async def test_key_stays_taken_for_its_period(db: Database, outcome: Outcome | None) -> None:
    """To its end, whatever became of the job; who comes meanwhile gets that, whether or not with a period."""
    first, _ = await db.store.jobs.enqueue(job(db))
    if outcome is None:
        await db.store.jobs.cancel(first.id)
    else:
        await end(db, outcome)
    db.clock.advance(3599.0)
    for period in (HOUR, None):
        for on_conflict in OnConflict:
            again, created = await db.store.jobs.enqueue(job(db, period, on_conflict=on_conflict))
            assert (again.id, again.finished_at is None, created) == (first.id, False, False)
    for new in ([job(db), job(db, None)], [job(db, None)] * 2):
        assert await db.store.jobs.enqueue_many(new) == [(first.id, False)] * 2
    db.clock.advance(1.0)
    another, created = await db.store.jobs.enqueue(job(db))
    assert (another.id == first.id, created) == (False, True)


async def test_live_job_keeps_its_key_after_its_period(db: Database) -> None:
    """As any other does; and within it, conflicts are settled as ever."""
    first, _ = await db.store.jobs.enqueue(job(db))
    replaced, created = await db.store.jobs.enqueue(job(db, on_conflict=OnConflict.REPLACE, payload={"n": 1}))
    assert (replaced.id, replaced.payload, created) == (first.id, {"n": 1}, False)
    db.clock.advance(7200.0)
    assert (await db.store.jobs.enqueue(job(db)))[1] is False


async def test_period_begins_when_the_job_is_enqueued(db: Database) -> None:
    """Not when it ends, nor when somebody else asks."""
    first, _ = await db.store.jobs.enqueue(job(db))
    db.clock.advance(1800.0)
    assert (await db.store.jobs.enqueue(job(db)))[1] is False
    await end(db)
    db.clock.advance(1800.0)
    assert (await db.store.jobs.enqueue(job(db)))[1] is True
    assert (await db.store.jobs.get(first.id)).status is JobStatus.DONE


async def test_keys_in_one_batch_are_held(db: Database) -> None:
    """Each for its own period, though they are added together."""
    new = [job(db, HOUR, "a"), job(db, HOUR, "a"), job(db, None, "b"), job(db, 2 * HOUR, "c"), job(db, None, None)]
    added = await db.store.jobs.enqueue_many(new)
    assert added == [(new[0].id, True), (new[0].id, False), *((item.id, True) for item in new[2:])]
    await end(db)
    db.clock.advance(3600.0)
    created = {key: (await db.store.jobs.enqueue(job(db, None, key)))[1] for key in "abc"}
    assert created == {"a": True, "b": True, "c": False}


async def test_job_whose_key_is_held_by_another_is_not_retried(db: Database) -> None:
    """Its own holds nothing up."""
    boom = Fail(JobFailure(type="E", message="m"))
    failed, _ = await db.store.jobs.enqueue(job(db, None))
    await end(db, boom)
    holder, _ = await db.store.jobs.enqueue(job(db))
    await end(db, boom)
    with pytest.raises(AlreadyExistsError) as raised:
        await db.store.jobs.retry(failed.id)
    assert raised.value.name == holder.id
    assert (await db.store.jobs.retry(holder.id)).status is JobStatus.QUEUED


@pytest.mark.parametrize(
    ("status", "outcome"), [(JobStatus.DONE, Finish()), (JobStatus.FAILED, Fail(JobFailure(type="E", message="m")))]
)
async def test_job_is_kept_while_its_key_is_held(db: Database, status: JobStatus, outcome: Outcome) -> None:
    """Whoever enqueues meanwhile is answered with it; key, job and errors go after that."""
    first, _ = await db.store.jobs.enqueue(job(db))
    await end(db, Retry(0.0, JobFailure(type="E", message="m")))
    await end(db, outcome)
    errors = db.rows("SELECT attempt, type FROM job_errors")
    maintenance, second = db.store.maintenance, timedelta(seconds=1)
    db.clock.advance(3599.0)
    assert await maintenance.prune_job_keys(None) is None
    assert await maintenance.prune_history(status, second, None) is None
    assert (await db.store.jobs.enqueue(job(db)))[0].id == first.id
    assert db.rows("SELECT attempt, type FROM job_errors") == errors
    db.clock.advance(1.0)
    assert await maintenance.prune_job_keys(None) is not None
    assert await maintenance.prune_history(status, second, None) is not None
    for table in ("job_dedupe", "job_errors"):
        assert db.rows(f"SELECT count(*) FROM {table}") == [(0,)]
    with pytest.raises(NotFoundError):
        await db.store.jobs.get(first.id)


async def test_fired_timer_that_is_replaced_hands_its_key_on(db: Database) -> None:
    """The event that nobody has handled goes, and the new job has the period."""
    person = await enroll(db)
    await db.store.jobs.enqueue(job(db, participant_id=person))
    await end(db, Fire())
    db.clock.advance(60.0)
    new = job(db, participant_id=person, on_conflict=OnConflict.REPLACE)
    assert (await db.store.jobs.enqueue(new))[1] is True
    await db.store.jobs.cancel(new.id)
    db.clock.advance(3599.0)
    assert (await db.store.jobs.enqueue(job(db)))[0].id == new.id


async def test_one_job_for_one_key_in_a_period(db: Database) -> None:
    """Of many who enqueue while others run it and end it, one creates it."""
    made = []

    async def enqueue() -> None:
        answer, created = await db.store.jobs.enqueue(job(db))
        made.append((answer.id, created))

    async def work() -> None:
        leased = (await db.store.jobs.claim(db.claim())).items
        await db.store.jobs.finish([Ending(item.lease, Finish()) for item in leased])

    await all_at_once([call for _ in range(MANY) for call in (partial(enqueue), partial(work), partial(work))])
    assert (len({job_id for job_id, _ in made}), sum(created for _, created in made)) == (1, 1)


async def test_expired_hold_is_taken_over_by_one(db: Database) -> None:
    """The next period has one job, too."""
    await db.store.jobs.enqueue(job(db))
    await end(db)
    db.clock.advance(3600.0)
    answers = await all_at_once([partial(db.store.jobs.enqueue, job(db)) for _ in range(MANY)])
    assert (len({answer.id for answer, _ in answers}), sum(created for _, created in answers)) == (1, 1)
    assert db.rows("SELECT count(*) FROM job_dedupe") == [(1,)]
