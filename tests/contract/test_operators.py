"""What operators decide: running a job again, settling a doubt."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from promptpipe.model.errors import AlreadyExistsError, NotFoundError, PreconditionError
from promptpipe.model.events import MessageFailed, MessageSent
from promptpipe.model.ids import JobId, MessageId
from promptpipe.model.jobs import Ending, Fail, Finish, Fire, JobFailure, JobStatus, NewJob
from promptpipe.model.leases import Work
from promptpipe.model.messages import InDoubtPolicy, MessageStatus, Resolution, Settlement, Verdict
from tests.support.database import LEASE_SECONDS, RULES
from tests.support.people import batch, enroll, message, receipt
from tests.support.sending import DOUBTFUL, attempts, mark, record

if TYPE_CHECKING:
    from promptpipe.model.jobs import Job, Outcome
    from promptpipe.model.messages import OutboxMessage, SendOrder
    from tests.support.database import Database

BOOM = Fail(JobFailure(type="ValueError", message="boom"))


async def enqueue(db: Database, after: float = 0.0, **other: object) -> Job:
    run_at = db.clock.now() + timedelta(seconds=after)
    values: dict[str, object] = {"id": JobId(db.new_id()), "kind": "test", "run_at": run_at, **other}
    job, _ = await db.store.jobs.enqueue(NewJob(**values))  # type: ignore[arg-type]
    return job


async def ended(db: Database, outcome: Outcome, **other: object) -> Job:
    """Return a job that has ended."""
    job = await enqueue(db, **other)  # type: ignore[arg-type]
    [leased] = (await db.store.jobs.claim(db.claim())).items
    await db.store.jobs.finish([Ending(leased.lease, outcome)])
    return await db.store.jobs.get(job.id)


# ---------------------------------------------------------------- jobs


async def test_failed_job_is_retried_as_the_same_job(db: Database) -> None:
    """Same id, same payload, attempts counted anew, due at once."""
    failed = await ended(db, BOOM, payload={"n": 1}, dedupe_key="k", priority=2, max_attempts=3)
    assert (failed.status, failed.attempt) == (JobStatus.FAILED, 1)
    db.clock.advance(60)
    db.runners.woken.clear()
    retried = await db.store.jobs.retry(failed.id)
    assert (retried.status, retried.attempt, retried.finished_at) == (JobStatus.QUEUED, 0, None)
    assert (retried.payload, retried.dedupe_key, retried.priority, retried.max_attempts) == ({"n": 1}, "k", 2, 3)
    assert (retried.created_at, retried.run_at) == (failed.created_at, db.clock.now())
    assert db.runners.woken == [Work.JOB]
    [leased] = (await db.store.jobs.claim(db.claim())).items
    assert (leased.job.id, leased.job.attempt) == (failed.id, 1)
    await db.store.jobs.finish([Ending(leased.lease, Finish())])
    assert (await db.store.jobs.get(failed.id)).status is JobStatus.DONE


async def test_canceled_job_is_retried(db: Database) -> None:
    """An operator may change their mind."""
    job = await enqueue(db, after=100)
    await db.store.jobs.cancel(job.id)
    assert (await db.store.jobs.retry(job.id)).status is JobStatus.QUEUED


async def test_queued_job_is_due_at_once_when_retried(db: Database) -> None:
    """Neither its time nor its backoff is waited for; its attempts are kept."""
    job = await enqueue(db, after=100)
    retried = await db.store.jobs.retry(job.id)
    assert (retried.run_at, retried.attempt) == (db.clock.now(), 0)
    assert [item.job.id for item in (await db.store.jobs.claim(db.claim())).items] == [job.id]


async def test_running_and_done_jobs_are_not_retried(db: Database) -> None:
    """What runs is not to run twice; what is done is done."""
    done = await ended(db, Finish())
    running = await enqueue(db)
    await db.store.jobs.claim(db.claim())
    for job, state in ((done, "done"), (running, "running")):
        with pytest.raises(PreconditionError, match=state):
            await db.store.jobs.retry(job.id)
    with pytest.raises(NotFoundError):
        await db.store.jobs.retry(JobId("nothing"))


async def test_failed_job_whose_key_is_taken_is_not_retried(db: Database) -> None:
    """Two live jobs never have one key; the one that has it is named."""
    failed = await ended(db, BOOM, dedupe_key="k")
    live = await enqueue(db, dedupe_key="k")
    with pytest.raises(AlreadyExistsError) as raised:
        await db.store.jobs.retry(failed.id)
    assert (raised.value.resource, raised.value.name) == ("job", live.id)
    assert (await db.store.jobs.get(failed.id)).status is JobStatus.FAILED


async def test_key_of_a_fired_timer_is_taken_until_its_event_is_handled(db: Database) -> None:
    """A canceled timer cannot come back beside the event of its successor."""
    person = await enroll(db)
    canceled = await enqueue(db, after=100, dedupe_key="k", participant_id=person)
    await db.store.jobs.cancel(canceled.id)
    fired = await ended(db, Fire(), dedupe_key="k", participant_id=person)
    with pytest.raises(AlreadyExistsError) as raised:
        await db.store.jobs.retry(canceled.id)
    assert raised.value.name == fired.id


async def test_rescheduled_job_runs_at_its_new_time(db: Database) -> None:
    """Earlier or later; attempts, key and payload stay, and the runners look anew."""
    job = await enqueue(db, after=100, dedupe_key="k", payload={"n": 1})
    db.change("UPDATE jobs SET attempt = 3")
    for after in (5.0, 50.0, -50.0):
        db.runners.woken.clear()
        run_at = db.clock.now() + timedelta(seconds=after)
        moved = await db.store.jobs.reschedule(job.id, run_at)
        assert (moved.status, moved.run_at, moved.attempt) == (JobStatus.QUEUED, run_at, 3)
        assert (moved.id, moved.dedupe_key, moved.payload) == (job.id, "k", {"n": 1})
        assert db.runners.woken == [Work.JOB]
        claimed = await db.store.jobs.claim(db.claim())
        assert (len(claimed.items), claimed.next_due_in) == ((0, after) if after > 0 else (1, LEASE_SECONDS))


async def test_only_a_queued_job_is_rescheduled(db: Database) -> None:
    """One that runs is with its worker, one that has ended has ended."""
    done = await ended(db, Finish())
    canceled = await enqueue(db, after=100)
    await db.store.jobs.cancel(canceled.id)
    running = await enqueue(db)
    await db.store.jobs.claim(db.claim())
    for job, state in ((done, "done"), (canceled, "canceled"), (running, "running")):
        before = await db.store.jobs.get(job.id)
        with pytest.raises(PreconditionError, match=state):
            await db.store.jobs.reschedule(job.id, db.clock.now())
        assert await db.store.jobs.get(job.id) == before
    with pytest.raises(NotFoundError):
        await db.store.jobs.reschedule(JobId("nothing"), db.clock.now())


# ---------------------------------------------------------------- messages in doubt


async def in_doubt(db: Database, **other: object) -> tuple[OutboxMessage, SendOrder]:
    """Return a message in doubt, and another behind it in the same lane."""
    person = await enroll(db)
    first, _ = await db.store.outbox.enqueue(message(db, person, "1", **other))
    await db.store.outbox.enqueue(message(db, person, "2"))
    [lease] = (await db.store.outbox.claim(db.claim())).items
    order = await mark(db, lease)
    assert order is not None
    await record(db, order, DOUBTFUL, LEASE_SECONDS)
    return await db.store.outbox.get(first.id), order


async def next_order(db: Database) -> SendOrder | None:
    leases = (await db.store.outbox.claim(db.claim())).items
    return await mark(db, leases[0]) if leases else None


async def test_doubt_resolved_by_resending_leaves_at_once_and_in_its_place(db: Database) -> None:
    """The wait is over for it; those behind it stay behind it."""
    doubtful, _ = await in_doubt(db)
    assert (doubtful.status, await next_order(db)) == (MessageStatus.IN_DOUBT, None)
    resolved = await db.store.outbox.resolve(doubtful.id, Resolution.RESEND)
    assert resolved.status is MessageStatus.QUEUED
    assert db.runners.woken[-1] is Work.OUTBOX
    order = await next_order(db)
    assert order is not None
    assert (order.message.id, order.attempt) == (doubtful.id, 2)
    assert attempts(db, doubtful.id) == [(1, "dropped"), (2, "sending")]


async def test_doubt_resolved_by_dropping_frees_the_lane(db: Database) -> None:
    """It has failed, whoever waits for it is told, and the next one leaves."""
    doubtful, _ = await in_doubt(db, flow_type="echo")
    dropped = await db.store.outbox.resolve(doubtful.id, Resolution.DROP)
    assert (dropped.status, dropped.last_error) == (MessageStatus.FAILED, "dropped by an operator")
    assert attempts(db, doubtful.id) == [(1, "dropped")]
    order = await next_order(db)
    assert order is not None
    assert order.message.id != doubtful.id
    [delivery] = (await db.store.mailboxes.claim(db.claim())).items
    assert isinstance(delivery.event.event, MessageFailed)


async def test_doubt_resolved_as_sent_frees_the_lane(db: Database) -> None:
    """Someone has seen it on the phone."""
    doubtful, _ = await in_doubt(db, flow_type="echo")
    sent = await db.store.outbox.resolve(doubtful.id, Resolution.MARK_SENT)
    assert (sent.status, sent.sent_at) == (MessageStatus.SENT, db.clock.now())
    order = await next_order(db)
    assert order is not None
    assert order.message.id != doubtful.id
    [delivery] = (await db.store.mailboxes.claim(db.claim())).items
    assert isinstance(delivery.event.event, MessageSent)


async def test_held_message_goes_to_the_tail_when_resent(db: Database) -> None:
    """It had left its lane; those that were behind it have gone on."""
    doubtful, _ = await in_doubt(db, in_doubt_policy=InDoubtPolicy.HOLD)
    db.clock.advance(RULES.wait)
    order = await next_order(db)
    assert order is not None
    assert order.message.id != doubtful.id
    await db.store.outbox.resolve(doubtful.id, Resolution.RESEND)
    following = await record(db, order, Settlement(verdict=Verdict.ACCEPTED, provider_id="wamid.2"), LEASE_SECONDS)
    assert following is not None
    assert following.message.id == doubtful.id


async def test_late_status_still_lifts_a_message_dropped_by_an_operator(db: Database) -> None:
    """The operator guessed; the provider knows."""
    doubtful, order = await in_doubt(db)
    await db.store.outbox.resolve(doubtful.id, Resolution.DROP)
    status = receipt(MessageStatus.DELIVERED, reference=(doubtful.id, order.attempt))
    await db.store.inbound.ingest(batch(status), None)
    assert (await db.store.outbox.get(doubtful.id)).status is MessageStatus.DELIVERED


@pytest.mark.parametrize("resolution", Resolution)
async def test_only_a_message_in_doubt_can_be_resolved(db: Database, resolution: Resolution) -> None:
    """A status may have come first: then it has decided."""
    doubtful, order = await in_doubt(db)
    await db.store.inbound.ingest(batch(receipt(MessageStatus.SENT, reference=(doubtful.id, order.attempt))), None)
    with pytest.raises(PreconditionError, match="sent"):
        await db.store.outbox.resolve(doubtful.id, resolution)
    with pytest.raises(NotFoundError):
        await db.store.outbox.resolve(MessageId("nothing"), resolution)
