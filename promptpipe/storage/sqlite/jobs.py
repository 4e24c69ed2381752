"""Jobs on SQLite."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

from promptpipe.model.errors import NotFoundError
from promptpipe.model.events import TimerFired
from promptpipe.model.ids import JobId, ParticipantId
from promptpipe.model.jobs import (
    PRIORITIES,
    Cancel,
    Fail,
    Finish,
    Fire,
    Job,
    JobFailure,
    JobStatus,
    LeasedJob,
    OnConflict,
    Retry,
    Snooze,
)
from promptpipe.model.leases import SUSPECT_FROM, Claimed, Lease, Work
from promptpipe.model.text import shortened, storable
from promptpipe.storage.sqlite import mailbox_events
from promptpipe.storage.sqlite.values import from_json, instant, maybe_instant, micros, seconds, span, to_json

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from promptpipe.model.jobs import Ending, NewJob
    from promptpipe.model.leases import Claim
    from promptpipe.storage.sqlite.database import Database
    from promptpipe.storage.sqlite.transaction import Transaction

MAX_ERROR_TEXT = 2000
OUT_OF_ATTEMPTS = JobFailure(type="OutOfAttempts", message="its worker vanished in the last attempt that was left")


class SqliteJobs:
    """`ports.store.JobStore` on SQLite."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def enqueue(self, new: NewJob) -> tuple[Job, bool]:
        """See `JobStore.enqueue`."""
        return await self._database.write(partial(enqueue, new=new))

    async def get(self, job_id: JobId) -> Job:
        """See `JobStore.get`."""
        return await self._database.read(partial(get, job_id=job_id))

    async def cancel(self, job_id: JobId) -> Job:
        """See `JobStore.cancel`."""
        return await self._database.write(partial(cancel, job_id=job_id))

    async def claim(self, claim: Claim) -> Claimed[LeasedJob]:
        """See `JobStore.claim`."""
        return await self._database.write(partial(_claim, request=claim))

    async def finish(self, endings: Sequence[Ending]) -> frozenset[Lease]:
        """See `JobStore.finish`."""
        return await self._database.write(partial(_finish, endings=endings))


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
    tx.run(
        "insert_job",
        id=new.id,
        queue=new.queue,
        priority=new.priority,
        due_at=micros(new.run_at),
        kind=new.kind,
        run_at=micros(new.run_at),
        payload=to_json(new.payload),
        dedupe_key=new.dedupe_key,
        participant_id=new.participant_id,
        max_attempts=new.max_attempts,
        now=tx.now,
    )
    tx.wake(Work.JOB)
    return get(tx, new.id), True


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
        raise NotFoundError(f"there is no job {job_id}")
    return as_job(row)


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
    error = row["last_error"] if failure is None else _error_text(failure)
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


def _claim(tx: Transaction, request: Claim) -> Claimed[LeasedJob]:
    wanted = {"now": tx.now, "held": json.dumps(list(request.held)), "suspect_from": SUSPECT_FROM}
    levels = [{"queue": queue, "priority": priority} for queue in request.queues for priority in PRIORITIES]
    due: list[sqlite3.Row] = []
    for level in levels:
        if (room := request.limit - len(due)) > 0:
            due += tx.all("due_jobs", limit=room, **level, **wanted)
    suspects: list[sqlite3.Row] = []
    if request.suspect and len(due) < request.limit:
        # Only now: what is due beside those found are suspects alone, so that looking for one scans nothing else.
        found = (tx.one("due_suspect_job", **level, **wanted) for level in levels)
        suspects = [row for row in found if row is not None][:1]
    ids, suspect_ids = _fit_to_run(tx, due), _fit_to_run(tx, suspects)
    leased = _lease(tx, ids + suspect_ids, request) if ids or suspect_ids else []
    some_ended = len(leased) < len(due) + len(suspects)
    return Claimed(
        items=leased[: len(ids)],
        suspect=leased[-1] if suspect_ids else None,
        next_due_in=0.0 if some_ended else _next_due_in(tx, request.queues),
    )


def _fit_to_run(tx: Transaction, rows: Sequence[sqlite3.Row]) -> list[str]:
    """Return the ids of *rows* that may run; end those canceled or out of attempts."""
    ids = []
    for row in rows:
        if row["cancel_requested"]:
            end(tx, row, JobStatus.CANCELED)
        elif row["attempt"] >= row["max_attempts"]:
            _keep_error(tx, row, OUT_OF_ATTEMPTS)
            end(tx, row, JobStatus.FAILED, OUT_OF_ATTEMPTS)
        else:
            ids.append(row["id"])
    return ids


def _lease(tx: Transaction, ids: list[str], request: Claim) -> list[LeasedJob]:
    fence = tx.next_fence()
    rows = tx.all(
        "lease_jobs",
        ids=json.dumps(ids),
        worker=request.worker,
        fence=fence,
        lease_end=tx.now + span(request.seconds),
        now=tx.now,
    )
    place = {id_: number for number, id_ in enumerate(ids)}
    rows.sort(key=lambda row: place[row["id"]])
    return [LeasedJob(Lease(Work.JOB, row["id"], fence), as_job(row)) for row in rows]


def _next_due_in(tx: Transaction, queues: Sequence[str]) -> float | None:
    rows = [
        tx.one("next_due_job", queue=queue, priority=priority, now=tx.now)
        for queue in queues
        for priority in PRIORITIES
    ]
    dues = [row["due_at"] for row in rows if row is not None and row["due_at"] is not None]
    return seconds(min(dues) - tx.now) if dues else None


def _finish(tx: Transaction, endings: Sequence[Ending]) -> frozenset[Lease]:
    lost = set()
    for ending in endings:
        row = tx.one("held_job", id=ending.lease.key, fence=ending.lease.fence)
        if row is None:
            lost.add(ending.lease)
            continue
        match ending.outcome:
            case Finish():
                _end_or_rerun(tx, row, JobStatus.DONE)
            case Fire():
                _fire(tx, row)
            case Cancel():
                _end_or_rerun(tx, row, JobStatus.CANCELED)
            case Snooze(seconds=delay):
                _requeue(tx, row, delay, given_back=True)
            case Fail(failure=failure):
                _keep_error(tx, row, failure)
                _end_or_rerun(tx, row, JobStatus.FAILED, failure)
            case Retry(seconds=delay, failure=failure):
                _keep_error(tx, row, failure)
                if row["attempt"] < row["max_attempts"]:
                    _requeue(tx, row, delay, failure=failure)
                else:
                    _end_or_rerun(tx, row, JobStatus.FAILED, failure)
    return frozenset(lost)


def _fire(tx: Transaction, row: sqlite3.Row) -> None:
    event = TimerFired(
        job_id=JobId(row["id"]),
        job_kind=row["kind"],
        dedupe_key=row["dedupe_key"],
        payload=from_json(row["payload"]),
    )
    mailbox_events.append(tx, ParticipantId(row["participant_id"]), event)
    _end_or_rerun(tx, row, JobStatus.DONE)


def _end_or_rerun(tx: Transaction, row: sqlite3.Row, status: JobStatus, failure: JobFailure | None = None) -> None:
    """End the job, unless it was enqueued again while it ran: then it is queued for that."""
    if row["rerun_at"] is None:
        end(tx, row, status, failure)
        return
    tx.run(
        "renew_job",
        **{column: row[column] for column in ("id", "kind", "queue", "priority", "participant_id", "max_attempts")},
        due_at=row["rerun_at"],
        run_at=row["rerun_at"],
        payload=row["rerun_payload"],
        fence=tx.next_fence(),
        now=tx.now,
    )
    tx.wake(Work.JOB)


def _requeue(
    tx: Transaction,
    row: sqlite3.Row,
    delay: float,
    *,
    given_back: bool = False,
    failure: JobFailure | None = None,
) -> None:
    if row["cancel_requested"]:
        _end_or_rerun(tx, row, JobStatus.CANCELED, failure)
        return
    tx.run(
        "requeue_job",
        id=row["id"],
        due_at=tx.now + span(delay),
        given_back=int(given_back),
        last_error=None if failure is None else _error_text(failure),
        now=tx.now,
    )
    tx.wake(Work.JOB)


def _keep_error(tx: Transaction, row: sqlite3.Row, failure: JobFailure) -> None:
    tx.run(
        "insert_job_error",
        job_id=row["id"],
        attempt=row["attempt"],
        type=shortened(storable(failure.type), MAX_ERROR_TEXT),
        message=shortened(storable(failure.message), MAX_ERROR_TEXT),
        worker=row["worker"],
        now=tx.now,
    )


def _error_text(failure: JobFailure) -> str:
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
