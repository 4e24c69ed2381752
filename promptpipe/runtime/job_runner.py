"""Runs jobs when they are due. A participant's job becomes an event in their mailbox; others are done by their kind."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog
import trio

from promptpipe.model.errors import CancelJobError, FailJobError, PayloadError, RetryJobError, SnoozeJobError
from promptpipe.model.jobs import DEFAULT_QUEUE, Cancel, Fail, Finish, Fire, JobFailure, Retry, Snooze
from promptpipe.model.leases import Work
from promptpipe.ports.metrics import OTHER
from promptpipe.runtime.claim_loop import ClaimLoop, Piece
from promptpipe.runtime.endings import Endings

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from promptpipe.model.jobs import Job, LeasedJob, Outcome
    from promptpipe.model.leases import Claim, Claimed
    from promptpipe.ports.jobs import JobKind
    from promptpipe.ports.store import JobStore
    from promptpipe.runtime.lease_keeper import Hold
    from promptpipe.runtime.worker import Worker

UNKNOWN_KIND_SNOOZE = 30.0
"""Seconds until a job of a kind nobody here knows is looked at again: a newer version may be rolling out."""

TIME_CHECK_SECONDS = 1.0
"""By how much a job may exceed its time."""

log = structlog.get_logger(__name__)

FIRE = Fire()
FINISH = Finish()

OUTCOMES = {Finish: "done", Fire: "fired", Retry: "retried", Snooze: "snoozed", Fail: "failed", Cancel: "canceled"}
"""What ends are counted as; beside them `dropped`: the lease was lost, or is given back in a drain."""


class JobRunner:
    """Runs due jobs of *queues*, up to *slots* at a time.

    Those of *timer_kinds* are participants' timers, the others are done as *kinds* say, by name.
    """

    name = "job runner"

    def __init__(
        self,
        store: JobStore,
        kinds: Mapping[str, JobKind[Any]],
        timer_kinds: Collection[str],
        worker: Worker,
        *,
        slots: int,
        queues: Sequence[str] = (DEFAULT_QUEUE,),
    ) -> None:
        self._store = store
        self._queues = deque(queues)
        self._kinds = kinds
        self._timer_kinds = timer_kinds
        self._worker = worker
        self._keeper = worker.keeper
        self._metrics = worker.metrics
        self._loop: ClaimLoop[LeasedJob] = ClaimLoop(
            Work.JOB,
            worker,
            slots=slots,
            claim=self._claim,
            handle=self._handle,
            unfinished=lambda: len(self._endings),
        )
        self._limits: dict[Hold, float] = {}
        self._unknown: set[str] = set()
        self._endings = Endings(store.finish, worker, self._loop.nudge)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run jobs until stopped and done."""
        async with trio.open_nursery() as nursery, trio.open_nursery() as clock:
            await nursery.start(self._endings.run)
            clock.start_soon(self._watch_time)
            await self._loop.run(task_status=task_status)
            clock.cancel_scope.cancel()
            self._endings.stop()

    def stop(self) -> None:
        """Claim nothing more."""
        self._loop.stop()

    async def _claim(self, claim: Claim) -> Claimed[LeasedJob]:
        """Claim from every queue, another one first each time: a backlog in one keeps nobody in the others waiting."""
        claimed = await self._store.claim(replace(claim, queues=tuple(self._queues)))
        self._queues.rotate(-1)
        return claimed

    async def _watch_time(self) -> None:
        """Stop what takes too long. Looking now and then costs less than a deadline for each."""
        while True:
            await trio.sleep(TIME_CHECK_SECONDS)
            now = trio.current_time()
            for hold, limit in self._limits.items():
                if now >= limit:
                    hold.stop()

    async def _handle(self, piece: Piece[LeasedJob], scope: trio.CancelScope) -> None:
        leased, started, _ = piece
        job, hold = leased.job, self._keeper.take(leased.lease, started, scope)
        kind, began = self._known(job.kind), self._keeper.started()
        self._metrics.job_started(kind, job.queue, None if kind is OTHER else _lag(job, began - started))
        outcome: Outcome | None = None
        try:
            outcome = await self._outcome(job, hold)
        finally:
            hold.scope = None
            self._limits.pop(hold, None)
            if outcome is None and scope.cancel_called:
                outcome = self._stopped(job, hold)
            if outcome is None or hold.lost:
                self._keeper.drop(hold)
            else:
                self._endings.add(hold, outcome)
            self._metrics.job_ended(kind, _name(outcome, job), self._keeper.started() - began)

    def _known(self, kind: str) -> str:
        """Return the name under which jobs of a kind are counted."""
        return kind if kind in self._kinds or kind in self._timer_kinds else OTHER

    async def _outcome(self, job: Job, hold: Hold) -> Outcome:
        """Do the work of *job* and return what is to become of it."""
        if job.participant_id is not None and job.kind in self._timer_kinds:
            return FIRE
        kind = self._kinds.get(job.kind)
        if kind is None or job.participant_id is not None:
            if job.kind not in self._unknown:  # there may be a great many of one
                self._unknown.add(job.kind)
                log.warning("jobs of this kind are left for another instance", kind=job.kind, first=job.id)
            return Snooze(UNKNOWN_KIND_SNOOZE)
        self._limits[hold] = trio.current_time() + kind.time_limit
        return await self._run(job, kind)

    def _stopped(self, job: Job, hold: Hold) -> Outcome | None:
        """Return what becomes of a job whose work was canceled here; None when it is no longer ours."""
        if hold.lost:
            log.warning("lease lost", work=hold.lease.work.value, key=hold.lease.key)
            return None
        if hold.cancel_requested:
            return Cancel()
        kind = self._kinds[job.kind]
        log.warning("job took too long", job=job.id, kind=job.kind, attempt=job.attempt, limit=kind.time_limit)
        return self._failed(job, kind, JobFailure(type="TimeLimit", message=f"took longer than {kind.time_limit:g} s"))

    async def _run(self, job: Job, kind: JobKind[Any]) -> Outcome:
        try:
            effects = await kind.run(job, kind.decoded(job.payload))
        except SnoozeJobError as snooze:
            return Snooze(snooze.seconds)
        except (FailJobError, PayloadError) as error:
            log.warning("job failed for good", job=job.id, kind=job.kind, exc_info=error)
            return Fail(_failure(error))
        except CancelJobError:
            return Cancel()
        except RetryJobError as error:
            delay = error.after
            if error.at is not None:
                delay = (error.at - self._worker.clock.now()).total_seconds()
            return Retry(max(0.0, delay or 0.0), _failure(error))
        except Exception as error:
            log.warning("job failed", job=job.id, kind=job.kind, attempt=job.attempt, exc_info=error)
            return self._failed(job, kind, _failure(error))
        return FINISH if effects is None else Finish(effects)

    def _failed(self, job: Job, kind: JobKind[Any], failure: JobFailure) -> Retry:
        return Retry(kind.backoff.delay(job.attempt, self._worker.random), failure)


def _lag(job: Job, since_claim: float) -> float | None:
    """Return how long after it was due a job starts, on the store's clock until it was claimed; None for a retry."""
    if job.attempt > 1:
        return None
    due = max(job.created_at, job.run_at)
    return (job.updated_at - due).total_seconds() + since_claim


def _name(outcome: Outcome | None, job: Job) -> str:
    """Return the name under which an outcome is counted."""
    if outcome is None:
        return "dropped"
    if isinstance(outcome, Retry) and job.attempt >= job.max_attempts:
        return "failed"
    return OUTCOMES[type(outcome)]


def _failure(error: BaseException) -> JobFailure:
    return JobFailure(type=type(error).__name__, message=str(error))
