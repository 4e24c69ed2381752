"""Many jobs at once: enqueued, claimed and ended together, each as if it were alone."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from promptpipe.model.ids import JobId, MessageId, ParticipantId
from promptpipe.model.jobs import (
    Cancel,
    Effects,
    Ending,
    Fail,
    Finish,
    JobFailure,
    JobStatus,
    NewJob,
    OnConflict,
    Retry,
    Snooze,
)
from promptpipe.model.leases import Lease, Work
from promptpipe.model.messages import MessageStatus, NewMessage, Text
from tests.support.database import LEASE_SECONDS
from tests.support.people import enroll

if TYPE_CHECKING:
    from promptpipe.model.jobs import Outcome
    from tests.support.database import Database

BOOM = JobFailure(type="ValueError", message="boom")


def job(db: Database, *, after: float = 0.0, **other: object) -> NewJob:
    at = db.clock.now() + timedelta(seconds=after)
    return NewJob(id=JobId(db.new_id()), kind="test", run_at=at, **other)  # type: ignore[arg-type]


async def leases(db: Database, limit: int = 10) -> list[Lease]:
    return [leased.lease for leased in (await db.store.jobs.claim(db.claim(limit))).items]


async def test_many_are_enqueued_in_one_commit(db: Database) -> None:
    """Each with all that was said of it; the runner is woken once."""
    new = [
        job(
            db,
            payload={"n": number, "text": "ä'\"\\"},
            priority=number % 4,
            queue=f"q{number % 2}",
            max_attempts=number,
        )
        for number in range(1, 6)
    ]
    new.append(job(db, after=0.000001, dedupe_key="k", participant_id=ParticipantId("p")))
    assert await db.store.jobs.enqueue_many(new) == [(item.id, True) for item in new]
    assert db.runners.woken == [Work.JOB]
    for item in new:
        stored = await db.store.jobs.get(item.id)
        assert stored.created_at == db.clock.now()
        for name in ("kind", "queue", "priority", "run_at", "payload", "dedupe_key", "participant_id", "max_attempts"):
            assert getattr(stored, name) == getattr(item, name)


async def test_many_keep_their_keys(db: Database) -> None:
    """A key that is live, or comes twice, is one job: as if they came one after the other."""
    live, _ = await db.store.jobs.enqueue(job(db, dedupe_key="a"))
    first, again = job(db, dedupe_key="b"), job(db, dedupe_key="b")
    kept, free = job(db, dedupe_key="a"), job(db)
    replacing = job(db, dedupe_key="b", on_conflict=OnConflict.REPLACE, payload={"new": True})
    results = await db.store.jobs.enqueue_many([first, again, kept, free, replacing])
    assert results == [(first.id, True), (first.id, False), (live.id, False), (free.id, True), (first.id, False)]
    assert (await db.store.jobs.get(first.id)).payload == {"new": True}


async def test_none_are_enqueued(db: Database) -> None:
    """Nothing is no error, and wakes nobody."""
    assert await db.store.jobs.enqueue_many([]) == []
    assert db.runners.woken == []


async def test_each_ends_as_it_ended(db: Database) -> None:
    """Whatever the others in the same commit did."""
    await db.store.jobs.enqueue_many([job(db) for _ in range(6)])
    outcomes: list[Outcome] = [Finish(), Cancel(), Fail(BOOM), Retry(5.0, BOOM), Snooze(5.0), Finish()]
    held = await leases(db)
    endings = [Ending(lease, outcome) for lease, outcome in zip(held, outcomes, strict=True)]
    assert await db.store.jobs.finish(endings) == frozenset()
    statuses = [(await db.store.jobs.get(JobId(lease.key))).status for lease in held]
    assert statuses == [
        JobStatus.DONE,
        JobStatus.CANCELED,
        JobStatus.FAILED,
        JobStatus.QUEUED,
        JobStatus.QUEUED,
        JobStatus.DONE,
    ]


async def test_lost_leases_end_nothing_and_cost_the_others_nothing(db: Database) -> None:
    """Those that are no longer held are named; the rest have ended."""
    await db.store.jobs.enqueue_many([job(db) for _ in range(4)])
    held = await leases(db)
    forged = Lease(Work.JOB, held[0].key, held[0].fence + 1000)
    gone = Lease(Work.JOB, "never-was", 1)
    db.clock.advance(LEASE_SECONDS)
    [taken] = await leases(db, 1)
    old = next(lease for lease in held if lease.key == taken.key)
    endings = [Ending(lease, Finish()) for lease in (*held, gone)]
    assert await db.store.jobs.finish([Ending(forged, Finish())]) == {forged}
    assert await db.store.jobs.finish(endings) == {old, gone}
    assert (await db.store.jobs.get(JobId(taken.key))).status is JobStatus.RUNNING
    assert await db.store.jobs.finish([Ending(taken, Finish())]) == frozenset()


async def test_the_same_ends_twice_have_one_effect(db: Database) -> None:
    """A commit whose answer was lost is repeated; then they are lost, and nothing is in the history twice."""
    await db.store.jobs.enqueue_many([job(db) for _ in range(3)])
    endings = [Ending(lease, Finish()) for lease in await leases(db)]
    assert await db.store.jobs.finish(endings) == frozenset()
    assert await db.store.jobs.finish(endings) == {ending.lease for ending in endings}
    assert db.rows("SELECT count(*) FROM job_history") == [(3,)]


async def test_one_enqueued_again_while_it_ran_is_not_at_its_end(db: Database) -> None:
    """Among many that are."""
    await db.store.jobs.enqueue_many([job(db), job(db, dedupe_key="k"), job(db)])
    held = await leases(db)
    await db.store.jobs.enqueue(job(db, dedupe_key="k", after=9.0, payload={"again": True}))
    assert await db.store.jobs.finish([Ending(lease, Finish()) for lease in held]) == frozenset()
    [(status, run_at)] = db.rows("SELECT status, attempt FROM jobs")
    assert (status, run_at) == ("queued", 0)


async def test_effects_are_applied_once_with_the_end(db: Database) -> None:
    """Jobs and messages, in the commit that ends the job; not when its lease was lost."""
    person = await enroll(db)
    await db.store.jobs.enqueue(job(db))
    [lease] = await leases(db)
    message = NewMessage(id=MessageId(db.new_id()), participant_id=person, channel="whatsapp", content=Text("hello"))
    effects = Effects(jobs=[job(db, after=60.0)], messages=[message])
    stale = Lease(Work.JOB, lease.key, lease.fence + 1000)
    assert await db.store.jobs.finish([Ending(stale, Finish(effects))]) == {stale}
    assert db.rows("SELECT count(*) FROM outbox_messages WHERE id = ?", message.id) == [(0,)]
    assert await db.store.jobs.finish([Ending(lease, Finish(effects))]) == frozenset()
    assert await db.store.jobs.finish([Ending(lease, Finish(effects))]) == {lease}
    assert (await db.store.outbox.get(message.id)).status is MessageStatus.QUEUED
    assert (await db.store.jobs.get(effects.jobs[0].id)).status is JobStatus.QUEUED


async def test_hasty_claim_finds_what_is_new(db: Database) -> None:
    """What became due since the last claim is found without looking at everything again."""
    await db.store.jobs.enqueue_many([job(db) for _ in range(3)])
    assert len(await leases(db)) == 3
    db.clock.advance(2.0)
    await db.store.jobs.enqueue_many([job(db) for _ in range(2)])
    hasty = await db.store.jobs.claim(db.claim(thorough=False))
    assert len(hasty.items) == 2


async def test_hasty_claim_finds_what_was_committed_a_moment_late(db: Database) -> None:
    """A job's time may be a little before that of others which were committed, and claimed, earlier."""
    late = job(db)
    db.clock.advance(0.9)
    await db.store.jobs.enqueue(job(db))
    assert len(await leases(db)) == 1
    await db.store.jobs.enqueue(late)
    assert len((await db.store.jobs.claim(db.claim(thorough=False))).items) == 1


async def test_hasty_claim_ends_what_is_not_to_run(db: Database) -> None:
    """As a thorough one does: what is out of attempts, and what was canceled; and what is held is left alone."""
    spent, unwanted, held, fresh = (job(db, max_attempts=limit) for limit in (1, 5, 5, 5))
    await db.store.jobs.enqueue_many([spent, unwanted, held])
    first = await leases(db)
    await db.store.jobs.cancel(unwanted.id)
    db.clock.advance(LEASE_SECONDS + 1)
    await db.store.jobs.enqueue(fresh)
    claimed = await db.store.jobs.claim(db.claim(held=[held.id], thorough=False))
    assert ([leased.job.id for leased in claimed.items], claimed.next_due_in) == ([fresh.id], 0.0)
    assert (await db.store.jobs.get(spent.id)).status is JobStatus.FAILED
    assert (await db.store.jobs.get(unwanted.id)).status is JobStatus.CANCELED
    extension = await db.store.leases.extend(first, LEASE_SECONDS)
    assert {lease.key for lease in first} - {lease.key for lease in extension.lost} == {held.id}


async def test_thorough_claim_finds_everything(db: Database) -> None:
    """However long before the last claim it was due, and suspects too."""
    early = job(db, after=-3600.0)
    await db.store.jobs.enqueue(job(db))
    assert len(await leases(db)) == 1
    await db.store.jobs.enqueue(early)
    [found] = await leases(db)
    assert found.key == early.id
    db.change("UPDATE jobs SET crashes = 5, worker = NULL, status = 'queued', due_at = run_at WHERE id = ?", early.id)
    assert (await db.store.jobs.claim(db.claim(thorough=False))).suspect is None
    assert (await db.store.jobs.claim(db.claim())).suspect is not None


@pytest.mark.parametrize("limit", [1, 7])
async def test_claims_are_bounded_over_all_levels(db: Database, limit: int) -> None:
    """Queues and priorities share the room."""
    for queue in ("a", "b"):
        for priority in range(4):
            await db.store.jobs.enqueue_many([job(db, queue=queue, priority=priority) for _ in range(2)])
    claimed = await db.store.jobs.claim(db.claim(limit, queues=("a", "b")))
    assert len(claimed.items) == limit
    assert sorted({item.job.priority for item in claimed.items}) == list(range((limit + 1) // 2))
