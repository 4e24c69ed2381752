"""The rows of jobs: enqueuing, looking, canceling, ending, running again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.errors import AlreadyExistsError, NotFoundError, PreconditionError
from promptpipe.model.ids import JobId, ParticipantId
from promptpipe.model.jobs import (
    Job,
    JobFailure,
    JobStatus,
    OnConflict,
)
from promptpipe.model.leases import Work
from promptpipe.model.text import shortened, storable
from promptpipe.storage.transactions import mailbox_events
from promptpipe.storage.transactions.pages import page
from promptpipe.storage.transactions.transaction import ConflictError
from promptpipe.storage.transactions.values import from_json, micros, to_json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from promptpipe.model.jobs import NewJob
    from promptpipe.model.listing import JobFilter, Page, PageRequest
    from promptpipe.storage.transactions.transaction import Last, Row, Transaction

MAX_ERROR_TEXT = 2000

_STATUSES = {status.value: status for status in JobStatus}


async def enqueue(tx: Transaction, new: NewJob) -> Last[tuple[Job, bool]]:
    """See `JobStore.enqueue`. One without a key, which cannot be taken, is added and read in one round trip."""
    adding = []
    if new.dedupe_key is None:
        job_id = new.id
        adding = [("insert_job", _row(new, run_at=new.run_at))]
        tx.wake(Work.JOB)
    else:
        job_id = await put(tx, new)
    return await tx.last(*adding, ("job", {"id": job_id}), then=lambda found: (as_job(found[-1][0]), job_id == new.id))


async def put(tx: Transaction, new: NewJob) -> JobId:
    """Add a job unless its key is taken, and return its id, or that of the one that has the key.

    A key also stays taken while the event of its fired timer waits to be handled, and for the period of its job.
    """
    waiting = None
    if new.dedupe_key is not None:
        live = await tx.one("jobs_by_key", dedupe_keys=[new.dedupe_key])
        if live is not None:
            await _enqueue_again(tx, live, new)
            return JobId(live["id"])
        waiting = await tx.one("waiting_timers", dedupe_keys=[new.dedupe_key])
        if waiting is not None:
            if new.on_conflict is OnConflict.KEEP:
                return JobId(waiting["job_id"])
            await mailbox_events.remove(tx, [waiting["id"]])
        elif (held := await tx.one("held_key", key=new.dedupe_key)) is not None:
            return JobId(held["job_id"])
    await tx.run("insert_job", **_row(new, run_at=new.run_at))
    if new.dedupe_period is not None:
        await _hold_key(tx, new, replaced=None if waiting is None else waiting["job_id"])
    tx.wake(Work.JOB)
    return new.id


async def _hold_key(tx: Transaction, new: NewJob, *, replaced: str | None) -> None:
    """Keep the key of a job that was added for its period; *replaced* is the one whose event has gone for it."""
    values = {"key": new.dedupe_key, "job_id": new.id, "period": new.dedupe_period, "replaced": replaced}
    if await tx.one("hold_key", **values) is None:
        raise ConflictError("somebody has taken the key, and their job is done already")


async def put_many(tx: Transaction, new: Sequence[NewJob]) -> list[tuple[JobId, bool]]:
    """Add jobs as `put` does, and return for each its id, or that of the one with its key, and whether it was added.

    Those whose keys are free are added in one statement.
    """
    keys = [job.dedupe_key for job in new if job.dedupe_key is not None]
    taken = {row["dedupe_key"] for row in await tx.all("taken_keys", dedupe_keys=keys)} if keys else set()
    taken |= {job.dedupe_key for job in new if job.dedupe_period is not None}  # to be held one by one
    free = {job.dedupe_key or job.id: job for job in reversed(new) if job.dedupe_key not in taken}
    added = {row["id"] for row in await tx.all("insert_jobs", jobs=_as_json(free.values()))} if free else set()
    if added:
        tx.wake(Work.JOB)
    results = []
    for job in new:
        job_id = job.id if job.id in added else await put(tx, job)
        results.append((job_id, job_id == job.id))
    return results


def _as_json(new: Iterable[NewJob]) -> str:
    rows = [
        {
            "id": job.id,
            "queue": job.queue,
            "priority": job.priority,
            "run_at": micros(job.run_at),
            "kind": job.kind,
            "payload": job.payload,
            "dedupe_key": job.dedupe_key,
            "participant_id": job.participant_id,
            "max_attempts": job.max_attempts,
        }
        for job in new
    ]
    return to_json(rows)


def _row(job: NewJob | Job, *, run_at: datetime | None, created_at: datetime | None = None) -> dict[str, object]:
    """Return the values of `insert_job`; due now without *run_at*, made now without *created_at*."""
    return {
        "id": job.id,
        "queue": job.queue,
        "priority": job.priority,
        "run_at": run_at,
        "kind": job.kind,
        "payload": to_json(job.payload),
        "dedupe_key": job.dedupe_key,
        "participant_id": job.participant_id,
        "max_attempts": job.max_attempts,
        "created_at": created_at,
    }


async def _enqueue_again(tx: Transaction, live: Row, new: NewJob) -> None:
    """Apply the conflict rule of *new* to the *live* job that has its key."""
    if new.on_conflict is OnConflict.REPLACE:
        await tx.run(
            "renew_job",
            id=live["id"],
            run_at=new.run_at,
            payload=to_json(new.payload),
            kind=new.kind,
            queue=new.queue,
            priority=new.priority,
            participant_id=new.participant_id,
            max_attempts=new.max_attempts,
            fence=await tx.next_fence(),
        )
        tx.wake(Work.JOB)
    elif live["status"] == JobStatus.RUNNING.value:
        await tx.run("set_rerun", id=live["id"], rerun_at=new.run_at, rerun_payload=to_json(new.payload))


async def get(tx: Transaction, job_id: JobId) -> Job:
    """See `JobStore.get`."""
    row = await tx.one("job", id=job_id)
    if row is None:
        raise NotFoundError("job", job_id)
    return as_job(row)


async def listed(tx: Transaction, wanted: JobFilter, request: PageRequest) -> Page[Job]:
    """See `JobStore.list`."""
    values = {
        "status": None if wanted.status is None else wanted.status.value,
        "kind": wanted.kind,
        "queue": wanted.queue,
    }
    if wanted.participant_id is None:
        return await page(tx, "list_jobs", request, as_job, **values)
    return await page(tx, "list_jobs_of", request, as_job, participant_id=wanted.participant_id, **values)


async def retry(tx: Transaction, job_id: JobId) -> Job:
    """See `JobStore.retry`."""
    live = await tx.one("job_to_change", id=job_id)
    if live is not None:
        await _reschedule(tx, live, None)
    else:
        ended = await get(tx, job_id)
        if ended.status is JobStatus.DONE:
            raise PreconditionError(f"the job {job_id} is done")
        await _refuse_taken_key(tx, ended)
        await tx.run("delete_job_history", id=job_id)
        await tx.run("insert_job", **_row(ended, run_at=None, created_at=ended.created_at))
        tx.wake(Work.JOB)
    return await get(tx, job_id)


async def reschedule(tx: Transaction, job_id: JobId, run_at: datetime) -> Job:
    """See `JobStore.reschedule`."""
    live = await tx.one("job_to_change", id=job_id)
    if live is None:
        ended = await get(tx, job_id)
        raise PreconditionError(f"the job {job_id} has ended: it is {ended.status.value}")
    await _reschedule(tx, live, run_at)
    return await get(tx, job_id)


async def _reschedule(tx: Transaction, live: Row, run_at: datetime | None) -> None:
    """Give a queued job another time: now, without *run_at*."""
    if live["status"] == JobStatus.RUNNING.value:
        raise PreconditionError(f"the job {live['id']} is running")
    await tx.run("reschedule_job", id=live["id"], run_at=run_at)
    tx.wake(Work.JOB)


async def _refuse_taken_key(tx: Transaction, job: Job) -> None:
    if job.dedupe_key is None:
        return
    live = await tx.one("jobs_by_key", dedupe_keys=[job.dedupe_key])
    waiting = await tx.one("waiting_timers", dedupe_keys=[job.dedupe_key])
    held = await tx.one("held_key", key=job.dedupe_key)
    holders = [live["id"]] if live is not None else [row["job_id"] for row in (waiting, held) if row is not None]
    for holder in holders:
        if holder != job.id:
            raise AlreadyExistsError("job", holder, f"the job {holder} has the dedupe key {job.dedupe_key}")


async def cancel(tx: Transaction, job_id: JobId) -> Job:
    """See `JobStore.cancel`."""
    row = await tx.one("job_to_change", id=job_id)
    if row is not None:
        # A participant's job has no effect but its event, which comes with its end: there is nothing to interrupt.
        if row["status"] == JobStatus.QUEUED.value or row["participant_id"] is not None:
            await end(tx, row, JobStatus.CANCELED)
        else:
            await tx.run("request_cancel", id=job_id)
    return await get(tx, job_id)


async def cancel_timers(tx: Transaction, timers: Collection[tuple[ParticipantId, str]]) -> None:
    """End participants' live timers with these keys, and remove the events of those that fired but are unhandled."""
    if not timers:
        return
    keys = {"dedupe_keys": sorted({key for _, key in timers})}
    live, waiting = (
        [row["id"] for row in rows if (row["participant_id"], row["dedupe_key"]) in timers]
        for rows in await tx.several(("jobs_by_key", keys), ("waiting_timers", keys))
    )
    if live:
        await tx.run("cancel_jobs", ids=live)
    await mailbox_events.remove(tx, waiting)


async def end(tx: Transaction, row: Row, status: JobStatus, failure: JobFailure | None = None) -> None:
    """Move a job to the history."""
    error = row["last_error"] if failure is None else error_text(failure)
    columns = (
        "id",
        "queue",
        "priority",
        "kind",
        "run_at",
        "payload",
        "dedupe_key",
        "participant_id",
        "attempt",
    )
    await tx.run("delete_job", id=row["id"])
    await tx.run(
        "insert_job_history",
        **{column: row[column] for column in columns},
        max_attempts=row["max_attempts"],
        worker=row["worker"],
        created_at=row["created_at"],
        status=status.value,
        last_error=error,
    )


def error_text(failure: JobFailure) -> str:
    """Return a failure in one bounded line."""
    return shortened(storable(f"{failure.type}: {failure.message}"), MAX_ERROR_TEXT)


def as_job(row: Row) -> Job:
    """Return the job in a row of `jobs` or `job_history`."""
    return Job(
        id=JobId(row["id"]),
        kind=row["kind"],
        queue=row["queue"],
        priority=row["priority"],
        status=_STATUSES[row["status"]],
        run_at=row["run_at"],
        payload=from_json(row["payload"]),
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        dedupe_key=row["dedupe_key"],
        participant_id=None if row["participant_id"] is None else ParticipantId(row["participant_id"]),
        last_error=row["last_error"],
        worker=row["worker"],
        finished_at=row.get("finished_at"),
    )
