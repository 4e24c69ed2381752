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
from promptpipe.storage.sqlite import mailbox_events
from promptpipe.storage.sqlite.pages import page
from promptpipe.storage.sqlite.values import from_json, instant, maybe_instant, micros, to_json

if TYPE_CHECKING:
    import sqlite3

    from promptpipe.model.jobs import NewJob
    from promptpipe.model.listing import JobFilter, Page, PageRequest
    from promptpipe.storage.sqlite.transaction import Transaction

MAX_ERROR_TEXT = 2000


def enqueue(tx: Transaction, new: NewJob) -> tuple[Job, bool]:
    """See `JobStore.enqueue`. A key also stays taken while the event of its fired timer waits to be handled."""
    if new.dedupe_key is not None:
        live = tx.one("job_by_key", dedupe_key=new.dedupe_key)
        if live is not None:
            _enqueue_again(tx, live, new)
            return get(tx, JobId(live["id"])), False
        waiting = tx.one("waiting_timer_by_key", dedupe_key=new.dedupe_key)
        if waiting is not None:
            if new.on_conflict is OnConflict.KEEP:
                return get(tx, JobId(waiting["job_id"])), False
            mailbox_events.remove(tx, waiting)
    _insert(tx, new, tx.now, due_at=micros(new.run_at))
    tx.wake(Work.JOB)
    return get(tx, new.id), True


def _insert(tx: Transaction, job: NewJob | Job, created_at: int, *, due_at: int) -> None:
    tx.run(
        "insert_job",
        id=job.id,
        queue=job.queue,
        priority=job.priority,
        due_at=due_at,
        kind=job.kind,
        payload=to_json(job.payload),
        dedupe_key=job.dedupe_key,
        participant_id=job.participant_id,
        max_attempts=job.max_attempts,
        created_at=created_at,
        now=tx.now,
    )


def _enqueue_again(tx: Transaction, live: sqlite3.Row, new: NewJob) -> None:
    """Apply the conflict rule of *new* to the *live* job that has its key."""
    if new.on_conflict is OnConflict.REPLACE:
        tx.run(
            "renew_job",
            id=live["id"],
            due_at=micros(new.run_at),
            run_at=micros(new.run_at),
            payload=to_json(new.payload),
            kind=new.kind,
            queue=new.queue,
            priority=new.priority,
            participant_id=new.participant_id,
            max_attempts=new.max_attempts,
            fence=tx.next_fence(),
            now=tx.now,
        )
        tx.wake(Work.JOB)
    elif live["status"] == JobStatus.RUNNING.value:
        payload = to_json(new.payload)
        tx.run("set_rerun", id=live["id"], rerun_at=micros(new.run_at), rerun_payload=payload, now=tx.now)


def get(tx: Transaction, job_id: JobId) -> Job:
    """See `JobStore.get`."""
    row = tx.one("job", id=job_id) or tx.one("ended_job", id=job_id)
    if row is None:
        raise NotFoundError("job", job_id)
    return as_job(row)


def listed(tx: Transaction, wanted: JobFilter, request: PageRequest) -> Page[Job]:
    """See `JobStore.list`."""
    values = {
        "status": None if wanted.status is None else wanted.status.value,
        "kind": wanted.kind,
        "queue": wanted.queue,
    }
    if wanted.participant_id is None:
        return page(tx, "list_jobs", request, as_job, **values)
    return page(tx, "list_jobs_of", request, as_job, participant_id=wanted.participant_id, **values)


def retry(tx: Transaction, job_id: JobId) -> Job:
    """See `JobStore.retry`."""
    live = tx.one("job", id=job_id)
    if live is not None:
        if live["status"] == JobStatus.RUNNING.value:
            raise PreconditionError(f"the job {job_id} is running")
        tx.run("hasten_job", id=job_id, now=tx.now)
    else:
        ended = get(tx, job_id)
        if ended.status is JobStatus.DONE:
            raise PreconditionError(f"the job {job_id} is done")
        _refuse_taken_key(tx, ended)
        tx.run("delete_job_history", id=job_id)
        _insert(tx, ended, micros(ended.created_at), due_at=tx.now)
    tx.wake(Work.JOB)
    return get(tx, job_id)


def _refuse_taken_key(tx: Transaction, job: Job) -> None:
    if job.dedupe_key is None:
        return
    live = tx.one("job_by_key", dedupe_key=job.dedupe_key)
    waiting = tx.one("waiting_timer_by_key", dedupe_key=job.dedupe_key)
    holder = live["id"] if live is not None else waiting["job_id"] if waiting is not None else None
    if holder is not None:
        raise AlreadyExistsError("job", holder, f"the job {holder} has the dedupe key {job.dedupe_key}")


def cancel(tx: Transaction, job_id: JobId) -> Job:
    """See `JobStore.cancel`."""
    row = tx.one("job", id=job_id)
    if row is not None:
        # A participant's job has no effect but its event, which comes with its end: there is nothing to interrupt.
        if row["status"] == JobStatus.QUEUED.value or row["participant_id"] is not None:
            end(tx, row, JobStatus.CANCELED)
        else:
            tx.run("request_cancel", id=job_id, now=tx.now)
    return get(tx, job_id)


def cancel_timer(tx: Transaction, participant_id: ParticipantId, key: str) -> None:
    """End this participant's live timer with *key*, and remove its event if it has fired but is unhandled."""
    live = tx.one("job_by_key", dedupe_key=key)
    if live is not None and live["participant_id"] == participant_id:
        end(tx, live, JobStatus.CANCELED)
    waiting = tx.one("waiting_timer_by_key", dedupe_key=key)
    if waiting is not None and waiting["participant_id"] == participant_id:
        mailbox_events.remove(tx, waiting)


def end(tx: Transaction, row: sqlite3.Row, status: JobStatus, failure: JobFailure | None = None) -> None:
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
    tx.run("delete_job", id=row["id"])
    tx.run(
        "insert_job_history",
        **{column: row[column] for column in columns},
        max_attempts=row["max_attempts"],
        worker=row["worker"],
        created_at=row["created_at"],
        status=status.value,
        last_error=error,
        now=tx.now,
    )


def error_text(failure: JobFailure) -> str:
    """Return a failure in one bounded line."""
    return shortened(storable(f"{failure.type}: {failure.message}"), MAX_ERROR_TEXT)


def as_job(row: sqlite3.Row) -> Job:
    """Return the job in a row of `jobs` or `job_history`."""
    return Job(
        id=JobId(row["id"]),
        kind=row["kind"],
        queue=row["queue"],
        priority=row["priority"],
        status=JobStatus(row["status"]),
        run_at=instant(row["run_at"]),
        payload=from_json(row["payload"]),
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        created_at=instant(row["created_at"]),
        updated_at=instant(row["updated_at"]),
        dedupe_key=row["dedupe_key"],
        participant_id=None if row["participant_id"] is None else ParticipantId(row["participant_id"]),
        last_error=row["last_error"],
        worker=row["worker"],
        finished_at=maybe_instant(row["finished_at"]),
    )
