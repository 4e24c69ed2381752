"""Jobs' leases on SQLite: who may run what, and what came of it."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

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
    Retry,
    Snooze,
)
from promptpipe.model.leases import SUSPECT_FROM, Claimed, Lease, Work
from promptpipe.model.text import shortened, storable
from promptpipe.storage.sqlite import jobs, mailbox_events
from promptpipe.storage.sqlite.values import from_json, seconds, span

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from promptpipe.model.jobs import Ending, NewJob
    from promptpipe.model.leases import Claim
    from promptpipe.model.listing import JobFilter, Page, PageRequest
    from promptpipe.storage.sqlite.database import Database
    from promptpipe.storage.sqlite.transaction import Transaction

OUT_OF_ATTEMPTS = JobFailure(type="OutOfAttempts", message="its worker vanished in the last attempt that was left")


class SqliteJobs:
    """`ports.store.JobStore` on SQLite."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def enqueue(self, new: NewJob) -> tuple[Job, bool]:
        """See `JobStore.enqueue`."""
        return await self._database.write(partial(jobs.enqueue, new=new))

    async def get(self, job_id: JobId) -> Job:
        """See `JobStore.get`."""
        return await self._database.read(partial(jobs.get, job_id=job_id))

    async def cancel(self, job_id: JobId) -> Job:
        """See `JobStore.cancel`."""
        return await self._database.write(partial(jobs.cancel, job_id=job_id))

    async def list(self, wanted: JobFilter, page: PageRequest) -> Page[Job]:
        """See `JobStore.list`."""
        return await self._database.read(partial(jobs.listed, wanted=wanted, request=page))

    async def retry(self, job_id: JobId) -> Job:
        """See `JobStore.retry`."""
        return await self._database.write(partial(jobs.retry, job_id=job_id))

    async def claim(self, claim: Claim) -> Claimed[LeasedJob]:
        """See `JobStore.claim`."""
        return await self._database.write(partial(_claim, request=claim))

    async def finish(self, endings: Sequence[Ending]) -> frozenset[Lease]:
        """See `JobStore.finish`."""
        return await self._database.write(partial(_finish, endings=endings))


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
            jobs.end(tx, row, JobStatus.CANCELED)
        elif row["attempt"] >= row["max_attempts"]:
            _keep_error(tx, row, OUT_OF_ATTEMPTS)
            jobs.end(tx, row, JobStatus.FAILED, OUT_OF_ATTEMPTS)
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
    return [LeasedJob(Lease(Work.JOB, row["id"], fence), jobs.as_job(row)) for row in rows]


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
        jobs.end(tx, row, status, failure)
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
        last_error=None if failure is None else jobs.error_text(failure),
        now=tx.now,
    )
    tx.wake(Work.JOB)


def _keep_error(tx: Transaction, row: sqlite3.Row, failure: JobFailure) -> None:
    tx.run(
        "insert_job_error",
        job_id=row["id"],
        attempt=row["attempt"],
        type=shortened(storable(failure.type), jobs.MAX_ERROR_TEXT),
        message=shortened(storable(failure.message), jobs.MAX_ERROR_TEXT),
        worker=row["worker"],
        now=tx.now,
    )
