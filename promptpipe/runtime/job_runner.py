"""Runs jobs when they are due. A participant's job becomes an event in their mailbox; others call their handler."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from promptpipe.model.errors import FailJobError, LeaseLostError, SnoozeJobError
from promptpipe.model.jobs import Cancel, Ending, Fail, Finish, Fire, JobFailure, Retry, Snooze
from promptpipe.model.leases import Work
from promptpipe.model.retry import JOB_BACKOFF
from promptpipe.runtime.claim_loop import ClaimLoop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from promptpipe.model.jobs import Job, LeasedJob, Outcome
    from promptpipe.ports.store import JobStore
    from promptpipe.runtime.lease_keeper import Hold
    from promptpipe.runtime.worker import Worker

    JobHandler = Callable[[Job], Awaitable[None]]
    """Does a job's work, which is at-least-once: it may be canceled, or run again after a crash.

    It may raise `SnoozeJobError` or `FailJobError`; any other exception is retried.
    """

UNKNOWN_KIND_SNOOZE = 30.0
"""Seconds until a job of a kind nobody here knows is looked at again: a newer version may be rolling out."""

log = structlog.get_logger(__name__)


class JobRunner:
    """Runs due jobs, up to *slots* at a time: participants' timers of *timer_kinds*, others by their handlers."""

    name = "job runner"

    def __init__(
        self,
        store: JobStore,
        handlers: Mapping[str, JobHandler],
        timer_kinds: Collection[str],
        worker: Worker,
        *,
        slots: int,
    ) -> None:
        self._store = store
        self._handlers = handlers
        self._timer_kinds = timer_kinds
        self._worker = worker
        self._keeper = worker.keeper
        self._persistence = worker.persistence
        self._loop: ClaimLoop[LeasedJob] = ClaimLoop(
            Work.JOB, worker, slots=slots, claim=store.claim, handle=self._handle
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run jobs until stopped and done."""
        await self._loop.run(task_status=task_status)

    def stop(self) -> None:
        """Claim nothing more."""
        self._loop.stop()

    async def _handle(self, leased: LeasedJob, started: float) -> None:
        hold = await self._keeper.hold(leased.lease, started, partial(self._run_and_finish, leased))
        if hold.cancel_requested:
            # The lease is still ours; only the work under it was stopped.
            await self._keeper.hold(leased.lease, started, partial(self._finish, Cancel()))

    async def _run_and_finish(self, leased: LeasedJob, hold: Hold) -> None:
        await self._finish(await self._outcome(leased.job), hold)

    async def _outcome(self, job: Job) -> Outcome:
        if job.participant_id is not None and job.kind in self._timer_kinds:
            return Fire()
        handler = self._handlers.get(job.kind)
        if handler is None or job.participant_id is not None:
            log.warning("job of unknown kind", job=job.id, kind=job.kind)
            return Snooze(UNKNOWN_KIND_SNOOZE)
        try:
            await handler(job)
        except SnoozeJobError as snooze:
            return Snooze(snooze.seconds)
        except FailJobError as error:
            return Fail(_failure(error))
        except Exception as error:
            log.warning("job failed", job=job.id, kind=job.kind, attempt=job.attempt, exc_info=error)
            return Retry(JOB_BACKOFF.delay(job.attempt, self._worker.random), _failure(error))
        return Finish()

    async def _finish(self, outcome: Outcome, hold: Hold) -> None:
        endings = [Ending(hold.lease, outcome)]
        if await self._persistence.until_committed(lambda: self._store.finish(endings)):
            raise LeaseLostError(f"the job {hold.lease.key} is no longer held under fence {hold.lease.fence}")


def _failure(error: BaseException) -> JobFailure:
    return JobFailure(type=type(error).__name__, message=str(error))
