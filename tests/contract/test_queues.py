"""Queues: pausing, limiting and counting them, live on every instance."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from promptpipe.model.ids import JobId
from promptpipe.model.jobs import Ending, Fail, Finish, JobFailure, NewJob, QueueStats, Snooze
from promptpipe.model.leases import Work
from tests.support.database import LEASE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptpipe.model.jobs import LeasedJob
    from tests.support.database import Database


async def fill(db: Database, number: int, *, after: float = 0.0, **other: object) -> None:
    at = db.clock.now() + timedelta(seconds=after)
    jobs = [NewJob(id=JobId(db.new_id()), kind="test", run_at=at, **other) for _ in range(number)]  # type: ignore[arg-type]
    await db.store.jobs.enqueue_many(jobs)


async def claim(db: Database, limit: int = 10, **other: object) -> Sequence[LeasedJob]:
    return (await db.store.jobs.claim(db.claim(limit, **other))).items  # type: ignore[arg-type]


async def test_paused_queue_is_not_claimed_until_it_is_resumed(db: Database) -> None:
    """Nothing of it starts, and nobody wakes up for it; resuming wakes the runners."""
    await fill(db, 2)
    await fill(db, 1, after=5.0)
    await db.store.queues.pause("default")
    claimed = await db.store.jobs.claim(db.claim())
    assert (list(claimed.items), claimed.next_due_in) == ([], None)
    db.runners.woken.clear()
    await db.store.queues.resume("default")
    assert db.runners.woken == [Work.JOB]
    assert len(await claim(db)) == 2


async def test_pausing_leaves_what_runs(db: Database) -> None:
    """A lease stays a lease."""
    await fill(db, 1)
    [leased] = await claim(db)
    await db.store.queues.pause("default")
    assert await db.store.jobs.finish([Ending(leased.lease, Finish())]) == frozenset()


async def test_limited_queue_runs_no_more_at_once_whoever_claims(db: Database) -> None:
    """Two of five, on all instances together; one more when one has ended, or waits for its time again."""
    await fill(db, 5)
    await db.store.queues.limit("default", 2)
    first = await claim(db)
    assert len(first) == 2
    assert await claim(db, worker="another") == []
    await db.store.jobs.finish([Ending(first[0].lease, Finish())])
    [third] = await claim(db, worker="another")
    await db.store.jobs.finish([Ending(third.lease, Snooze(60.0))])
    [fourth] = await claim(db)
    assert await claim(db) == []
    await db.store.queues.limit("default", None)
    assert len(await claim(db)) == 1
    assert fourth.job.id not in {leased.job.id for leased in (*first, third)}


async def test_full_queue_wakes_nobody(db: Database) -> None:
    """What will be due in a full queue is no reason to look: the end of a job is."""
    await fill(db, 2)
    await fill(db, 1, after=5.0)
    await db.store.queues.limit("default", 2)
    assert (await db.store.jobs.claim(db.claim())).next_due_in is None


async def test_lease_that_ran_out_does_not_fill_a_queue(db: Database) -> None:
    """A crashed worker's job leaves room for itself."""
    await fill(db, 1)
    await db.store.queues.limit("default", 1)
    await claim(db)
    db.clock.advance(LEASE_SECONDS)
    assert len(await claim(db, worker="another")) == 1


async def test_limit_concerns_its_queue_alone(db: Database) -> None:
    """Others have as much room as ever."""
    await fill(db, 3)
    await fill(db, 3, queue="other")
    await db.store.queues.limit("other", 1)
    claimed = await db.store.jobs.claim(db.claim(queues=("other", "default")))
    assert [item.job.queue for item in claimed.items] == ["other", "default", "default", "default"]


async def test_stats_count_each_queue_by_what_its_jobs_wait_for(db: Database) -> None:
    """Scheduled, ready, running, failed; and how long the oldest ready one has waited."""
    await fill(db, 3)
    [failed, _] = await claim(db, 2)
    await db.store.jobs.finish([Ending(failed.lease, Fail(JobFailure(type="E", message="m")))])
    await fill(db, 4, after=60.0)
    await fill(db, 1, queue="other")
    canceled = NewJob(id=JobId(db.new_id()), kind="test", run_at=db.clock.now())
    await db.store.jobs.enqueue(canceled)
    await db.store.jobs.cancel(canceled.id)
    await db.store.queues.pause("empty")
    await db.store.queues.limit("other", 7)
    db.clock.advance(3.0)
    assert list(await db.store.queues.stats()) == [
        QueueStats(name="default", paused=False, concurrency=None, scheduled=4, ready=1, running=1, failed=1, lag=3.0),
        QueueStats(name="empty", paused=True, concurrency=None, scheduled=0, ready=0, running=0, failed=0, lag=0.0),
        QueueStats(name="other", paused=False, concurrency=7, scheduled=0, ready=1, running=0, failed=0, lag=3.0),
    ]
    assert [queue.name for queue in await db.store.queues.stats("other")] == ["other"]
