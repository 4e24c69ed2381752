"""Jobs' leases: who may run what, and what came of it."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from promptpipe.model.errors import NotFoundError, StoreUnavailableError
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
from promptpipe.storage.transactions import jobs, mailbox_events, messages
from promptpipe.storage.transactions.floors import Floors
from promptpipe.storage.transactions.values import fences, from_json, span, to_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from promptpipe.model.jobs import Effects, Ending, NewJob, Outcome
    from promptpipe.model.leases import Claim
    from promptpipe.model.listing import JobFilter, Page, PageRequest
    from promptpipe.storage.transactions.transaction import Database, Last, Row, Transaction

    Found = tuple[list[Row], float | None]
    """Jobs in their order, and the seconds until the next is due."""

OUT_OF_ATTEMPTS = JobFailure(type="OutOfAttempts", message="its worker vanished in the last attempt that was left")


FEW = 16
"""So many jobs that are held can be left out by the statement that claims, and none has to be looked for after."""


class JobTransactions:
    """`ports.store.JobStore`."""

    def __init__(self, database: Database, handing: Database) -> None:
        self._database = database
        self._handing = handing
        self._floors = Floors(len(PRIORITIES))

    async def enqueue(self, new: NewJob) -> tuple[Job, bool]:
        """See `JobStore.enqueue`."""
        return await self._database.write(partial(jobs.enqueue, new=new))

    async def enqueue_many(self, new: Sequence[NewJob]) -> list[tuple[JobId, bool]]:
        """See `JobStore.enqueue_many`."""
        return await self._database.write(partial(jobs.put_many, new=new))

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

    async def reschedule(self, job_id: JobId, run_at: datetime) -> Job:
        """See `JobStore.reschedule`."""
        return await self._database.write(partial(jobs.reschedule, job_id=job_id, run_at=run_at))

    async def claim(self, claim: Claim) -> Claimed[LeasedJob]:
        """See `JobStore.claim`."""
        held = frozenset(claim.held)
        if not claim.thorough and len(claim.queues) == 1 and len(held) <= FEW:
            return await self._claim_quickly(claim, held)
        try:
            return await self._database.write(partial(_claim, request=claim, floors=self._floors, held=held))
        except _HeldError:
            # Rare enough to pay for it only then: with a list of a few hundred, a claim takes a fifth longer.
            return await self._database.write(partial(_claim, request=claim, floors=self._floors, excluded=list(held)))

    async def _claim_quickly(self, claim: Claim, held: frozenset[str]) -> Claimed[LeasedJob]:
        """Claim from one queue in one round trip; what is not to run is ended after, which is rare."""
        level = self._floors.of(claim.queues[0], thorough=False)
        found: Found = await self._database.write(partial(_claim_from_one, request=claim, floors=level, held=held))
        rows, due_in = found
        self._floors.raise_to(claim.queues[0], _reached(rows))
        fit = [_leased(row) for row in rows if not _is_over(row)]
        if len(fit) < len(rows):
            over = [row for row in rows if _is_over(row)]
            with suppress(StoreUnavailableError):  # the others are ours to run; these are found again
                await self._database.write(partial(_end_those_over, rows=over))
        return Claimed(items=fit, next_due_in=0.0 if len(fit) < len(rows) else due_in)

    async def finish(self, endings: Sequence[Ending]) -> frozenset[Lease]:
        """See `JobStore.finish`."""
        return await self._handing.write(partial(_finish, endings=endings))


class _HeldError(Exception):
    """A job was claimed that the claimer holds: its lease is overdue, or somebody has given it back meanwhile."""


async def _claim_from_one(
    tx: Transaction, request: Claim, floors: Sequence[datetime], held: frozenset[str]
) -> Last[Found]:
    [queue] = request.queues
    looks = _look(request, queue, request.limit, floors, list(held))
    return await tx.last(*tx.lock_of(queue), *looks, then=lambda answers: _found(answers[-len(looks) :]))


async def _end_those_over(tx: Transaction, rows: Sequence[Row]) -> None:
    """End those of the leased *rows* that are still leased under the same fence."""
    held = await tx.all("held_jobs", leases=to_json({row["id"]: row["fence"] for row in rows}))
    still = {row["id"] for row in held}
    await _fit_to_run(tx, [row for row in rows if row["id"] in still])


async def _claim(
    tx: Transaction,
    request: Claim,
    floors: Floors,
    held: frozenset[str] = frozenset(),
    excluded: Sequence[str] = (),
) -> Claimed[LeasedJob]:
    claimed: list[LeasedJob] = []
    suspect: list[LeasedJob] = []
    ended = False
    due_in = None
    for queue in request.queues:
        if (room := request.limit - len(claimed)) > 0:
            level = floors.of(queue, thorough=request.thorough)
            rows, due_in = await _lease(tx, request, queue, room, level, excluded)
            if not held.isdisjoint(row["id"] for row in rows):
                raise _HeldError
            fit = await _fit_to_run(tx, rows)
            ended = ended or len(fit) < len(rows)
            claimed += fit
            floors.raise_to(queue, _reached(rows))
    if request.suspect and request.thorough and len(claimed) < request.limit:
        # Only now: what is due beside those found are suspects alone, so that looking for one scans nothing else.
        for queue in request.queues:
            if not suspect:
                level = floors.of(queue, thorough=True)
                rows, due_in = await _lease(tx, request, queue, 1, level, list(held) or excluded, crashed=True)
                suspect = await _fit_to_run(tx, rows)
                ended = ended or len(suspect) < len(rows)
    return Claimed(
        items=claimed,
        suspect=suspect[0] if suspect else None,
        next_due_in=0.0 if ended else due_in,
    )


async def _lease(
    tx: Transaction,
    request: Claim,
    queue: str,
    room: int,
    floors: Sequence[datetime],
    excluded: Sequence[str],
    *,
    crashed: bool = False,
) -> tuple[Sequence[Row], float | None]:
    """Lease due jobs of a queue, at most *room*: suspects, if *crashed*, or others.

    Return also the seconds until the next job of any queue is due; None when none is in sight.
    """
    looks = _look(request, queue, room, floors, excluded, crashed=crashed)
    answers = await tx.several(*tx.lock_of(queue), *looks)
    return _found(answers[-len(looks) :])


def _look(
    request: Claim, queue: str, room: int, floors: Sequence[datetime], excluded: Sequence[str], *, crashed: bool = False
) -> list[tuple[str, dict[str, object]]]:
    """Return the statements, with their values, that lease jobs; `_found` reads their answers."""
    claim = {
        "queue": queue,
        "limit": room,
        "floors": list(floors),
        "crashed": crashed,
        "suspect_from": SUSPECT_FROM,
        "held": list(excluded),
        "worker": request.worker,
        "lease": span(request.seconds),
    }
    following = {"queues": list(request.queues), "lease": span(request.seconds), "sight": span(request.sight)}
    return [("claim_jobs", claim), ("next_due_job", following)]


def _found(answers: Sequence[Sequence[Row]]) -> Found:
    """Return the jobs in their order, and the seconds until the next is due."""
    rows, [following] = answers
    due_in = following["due_in"]
    ordered = sorted(rows, key=lambda row: (row["priority"], row["run_at"], row["id"]))
    return ordered, None if due_in is None else due_in.total_seconds()


def _reached(rows: Sequence[Row]) -> Iterator[tuple[int, datetime, datetime]]:
    """Give what `Floors` are raised to by jobs that were leased."""
    return ((row["priority"], row["run_at"], row["updated_at"]) for row in rows)


def _is_over(row: Row) -> bool:
    """Return whether a job that was leased is not to run any more."""
    return bool(row["cancel_requested"]) or row["attempt"] > row["max_attempts"]


def _leased(row: Row) -> LeasedJob:
    return LeasedJob(Lease(Work.JOB, row["id"], row["fence"]), jobs.as_job(row))


async def _fit_to_run(tx: Transaction, rows: Sequence[Row]) -> list[LeasedJob]:
    """Return those of the leased *rows* that may run; end those canceled or out of attempts."""
    fit = []
    for row in rows:
        if row["cancel_requested"]:
            await jobs.end(tx, {**row, "attempt": row["attempt"] - 1}, JobStatus.CANCELED)
        elif row["attempt"] > row["max_attempts"]:
            spent = {**row, "attempt": row["attempt"] - 1}
            await _keep_error(tx, spent, OUT_OF_ATTEMPTS)
            await jobs.end(tx, spent, JobStatus.FAILED, OUT_OF_ATTEMPTS)
        else:
            fit.append(_leased(row))
    return fit


async def _finish(tx: Transaction, endings: Sequence[Ending]) -> frozenset[Lease]:
    await _lock_lanes(tx, endings)
    done = [ending.lease for ending in endings if isinstance(ending.outcome, Finish) and ending.outcome.effects is None]
    gone = {row["id"] for row in await tx.all("finish_jobs", leases=fences(done))} if done else set()
    others = [ending for ending in endings if ending.lease.key not in gone]
    if not others:
        return frozenset()
    rows = await tx.all("held_jobs", leases=fences(ending.lease for ending in others))
    held = {Lease(Work.JOB, row["id"], row["fence"]): row for row in rows}
    ours = {ending.lease: ending.outcome for ending in others if ending.lease in held}
    await _fire(tx, [held[lease] for lease, outcome in ours.items() if isinstance(outcome, Fire)])
    for lease, outcome in ours.items():
        if not isinstance(outcome, Fire):
            await _apply(tx, held[lease], outcome)
    return frozenset(ending.lease for ending in others) - ours.keys()


async def _lock_lanes(tx: Transaction, endings: Sequence[Ending]) -> None:
    """Lock the lanes that these endings append to, before any job."""
    fired = [ending.lease.key for ending in endings if isinstance(ending.outcome, Fire)]
    people = await tx.all("participants_of_jobs", ids=fired) if fired else []
    lanes = {(Work.MAILBOX, row["participant_id"]) for row in people}
    for ending in endings:
        if isinstance(ending.outcome, Finish) and ending.outcome.effects is not None:
            lanes |= {(Work.OUTBOX, messages.lane_of(message)) for message in ending.outcome.effects.messages}
    await tx.lock_lanes(lanes)


async def _apply(tx: Transaction, row: Row, outcome: Outcome) -> None:
    match outcome:
        case Finish(effects=effects):
            await _finish_one(tx, row, effects)
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


async def _finish_one(tx: Transaction, row: Row, effects: Effects | None) -> None:
    """End a job with its effects; one whose effects are impossible has failed, and none of them takes place."""
    if effects is not None:
        try:
            async with tx.savepoint():
                for new in effects.jobs:
                    await jobs.put(tx, new)
                for message in effects.messages:
                    await messages.enqueue(tx, message)
        except Exception as error:
            if not isinstance(error, NotFoundError) and not tx.is_permanent(error):
                raise
            failure = JobFailure(type=type(error).__name__, message=f"its effects are impossible: {error}")
            await _keep_error(tx, row, failure)
            await _end_or_rerun(tx, row, JobStatus.FAILED, failure)
            return
    await _end_or_rerun(tx, row, JobStatus.DONE)


async def _fire(tx: Transaction, rows: Sequence[Row]) -> None:
    """Append an event for each of the held jobs in *rows*, and end them."""
    if not rows:
        return
    await mailbox_events.append(tx, [(ParticipantId(row["participant_id"]), _fired(row)) for row in rows])
    await tx.run("finish_jobs", leases=to_json({row["id"]: row["fence"] for row in rows}))
    for row in rows:
        if row["rerun_at"] is not None:
            await _end_or_rerun(tx, row, JobStatus.DONE)


def _fired(row: Row) -> TimerFired:
    return TimerFired(
        job_id=JobId(row["id"]),
        job_kind=row["kind"],
        dedupe_key=row["dedupe_key"],
        payload=from_json(row["payload"]),
    )


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
