"""Jobs' leases: who may run what, and what came of it."""

from __future__ import annotations

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
from promptpipe.storage.transactions import jobs, mailbox_events
from promptpipe.storage.transactions.values import from_json, span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptpipe.model.jobs import Ending, NewJob, Outcome
    from promptpipe.model.leases import Claim
    from promptpipe.model.listing import JobFilter, Page, PageRequest
    from promptpipe.storage.transactions.transaction import Database, Row, Transaction

OUT_OF_ATTEMPTS = JobFailure(type="OutOfAttempts", message="its worker vanished in the last attempt that was left")


class JobTransactions:
    """`ports.store.JobStore`."""

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


async def _claim(tx: Transaction, request: Claim) -> Claimed[LeasedJob]:
    wanted = {"held": list(request.held), "suspect_from": SUSPECT_FROM}
    levels = [{"queue": queue, "priority": priority} for queue in request.queues for priority in PRIORITIES]
    due: list[Row] = []
    for level in levels:
        if (room := request.limit - len(due)) > 0:
            due += await tx.all("due_jobs", limit=room, **level, **wanted)
    suspects: list[Row] = []
    if request.suspect and len(due) < request.limit:
        # Only now: what is due beside those found are suspects alone, so that looking for one scans nothing else.
        for level in levels:
            suspects = suspects or list(await tx.all("due_suspect_job", **level, **wanted))
    ids, suspect_ids = await _fit_to_run(tx, due), await _fit_to_run(tx, suspects)
    leased = await _lease(tx, ids + suspect_ids, request) if ids or suspect_ids else []
    some_ended = len(leased) < len(due) + len(suspects)
    return Claimed(
        items=leased[: len(ids)],
        suspect=leased[-1] if suspect_ids else None,
        next_due_in=0.0 if some_ended else await _next_due_in(tx, request.queues),
    )


async def _fit_to_run(tx: Transaction, rows: Sequence[Row]) -> list[str]:
    """Return the ids of *rows* that may run; end those canceled or out of attempts."""
    ids = []
    for row in rows:
        if row["cancel_requested"]:
            await jobs.end(tx, row, JobStatus.CANCELED)
        elif row["attempt"] >= row["max_attempts"]:
            await _keep_error(tx, row, OUT_OF_ATTEMPTS)
            await jobs.end(tx, row, JobStatus.FAILED, OUT_OF_ATTEMPTS)
        else:
            ids.append(row["id"])
    return ids


async def _lease(tx: Transaction, ids: list[str], request: Claim) -> list[LeasedJob]:
    fence = await tx.next_fence()
    rows = await tx.all("lease_jobs", ids=ids, worker=request.worker, fence=fence, lease=span(request.seconds))
    place = {id_: number for number, id_ in enumerate(ids)}
    leased = [LeasedJob(Lease(Work.JOB, row["id"], fence), jobs.as_job(row)) for row in rows]
    return sorted(leased, key=lambda item: place[item.job.id])


async def _next_due_in(tx: Transaction, queues: Sequence[str]) -> float | None:
    row = await tx.the("next_due_job", queues=list(queues))
    return None if row["due_in"] is None else row["due_in"].total_seconds()


async def _finish(tx: Transaction, endings: Sequence[Ending]) -> frozenset[Lease]:
    fired = [ending.lease.key for ending in endings if isinstance(ending.outcome, Fire)]
    if fired:
        people = await tx.all("participants_of_jobs", ids=fired)
        await tx.lock_lanes([(Work.MAILBOX, row["participant_id"]) for row in people])
    leases = [ending.lease for ending in endings]
    held = {
        row["id"]: row
        for row in await tx.all(
            "held_jobs", ids=[lease.key for lease in leases], fences=[lease.fence for lease in leases]
        )
    }
    lost = set()
    for ending in endings:
        row = held.pop(ending.lease.key, None)
        if row is None:
            lost.add(ending.lease)
        else:
            await _apply(tx, row, ending.outcome)
    return frozenset(lost)


async def _apply(tx: Transaction, row: Row, outcome: Outcome) -> None:
    match outcome:
        case Finish():
            await _end_or_rerun(tx, row, JobStatus.DONE)
        case Fire():
            await _fire(tx, row)
        case Cancel():
            await _end_or_rerun(tx, row, JobStatus.CANCELED)
        case Snooze(seconds=delay):
            await _requeue(tx, row, delay, given_back=True)
        case Fail(failure=failure):
            await _keep_error(tx, row, failure)
            await _end_or_rerun(tx, row, JobStatus.FAILED, failure)
        case Retry(seconds=delay, failure=failure):
            await _keep_error(tx, row, failure)
            if row["attempt"] < row["max_attempts"]:
                await _requeue(tx, row, delay, failure=failure)
            else:
                await _end_or_rerun(tx, row, JobStatus.FAILED, failure)


async def _fire(tx: Transaction, row: Row) -> None:
    event = TimerFired(
        job_id=JobId(row["id"]),
        job_kind=row["kind"],
        dedupe_key=row["dedupe_key"],
        payload=from_json(row["payload"]),
    )
    await mailbox_events.append(tx, ParticipantId(row["participant_id"]), event)
    await _end_or_rerun(tx, row, JobStatus.DONE)


async def _end_or_rerun(tx: Transaction, row: Row, status: JobStatus, failure: JobFailure | None = None) -> None:
    """End the job, unless it was enqueued again while it ran: then it is queued for that."""
    if row["rerun_at"] is None:
        await jobs.end(tx, row, status, failure)
        return
    await tx.run(
        "renew_job",
        **{column: row[column] for column in ("id", "kind", "queue", "priority", "participant_id", "max_attempts")},
        run_at=row["rerun_at"],
        payload=row["rerun_payload"],
        fence=await tx.next_fence(),
    )
    tx.wake(Work.JOB)


async def _requeue(
    tx: Transaction,
    row: Row,
    delay: float,
    *,
    given_back: bool = False,
    failure: JobFailure | None = None,
) -> None:
    if row["cancel_requested"]:
        await _end_or_rerun(tx, row, JobStatus.CANCELED, failure)
        return
    await tx.run(
        "requeue_job",
        id=row["id"],
        delay=span(delay),
        given_back=int(given_back),
        last_error=None if failure is None else jobs.error_text(failure),
    )
    tx.wake(Work.JOB)


async def _keep_error(tx: Transaction, row: Row, failure: JobFailure) -> None:
    await tx.run(
        "insert_job_error",
        job_id=row["id"],
        attempt=row["attempt"],
        type=shortened(storable(failure.type), jobs.MAX_ERROR_TEXT),
        message=shortened(storable(failure.message), jobs.MAX_ERROR_TEXT),
        worker=row["worker"],
    )
