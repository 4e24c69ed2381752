"""Jobs as they should be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from promptpipe.model.jobs import Cancel, Fail, Finish, OnConflict, Retry, Snooze
from tests.support.database import LEASE_SECONDS

if TYPE_CHECKING:
    from promptpipe.model.jobs import NewJob, Outcome
    from promptpipe.model.leases import Lease


@dataclass
class ModelJob:
    """A job as it should be. *due* is when it may be claimed, in seconds; *ended* ones are in no queue."""

    new: NewJob
    due: float
    run_at: float
    queue: str
    priority: int
    max_attempts: int
    status: str = "queued"
    attempt: int = 0
    crashes: int = 0
    worker: str | None = None
    lease: Lease | None = None
    cancel_requested: bool = False
    rerun: float | None = None
    ended_at: float = 0.0

    @property
    def live(self) -> bool:
        return self.status in {"queued", "running"}

    @property
    def suspicion(self) -> int:
        return self.crashes + (self.worker is not None)

    def queue_again(self, due: float) -> None:
        self.status, self.worker, self.lease, self.crashes, self.due = "queued", None, None, 0, due

    def renew(self, run_at: float) -> None:
        self.queue_again(run_at)
        self.run_at, self.attempt, self.cancel_requested, self.rerun = run_at, 0, False, None

    def end(self, status: str, now: float) -> None:
        if self.rerun is not None:
            self.renew(self.rerun)
        else:
            self.status, self.lease, self.ended_at = status, None, now

    def apply(self, outcome: Outcome, now: float) -> None:
        match outcome:
            case Finish():
                self.end("done", now)
            case Cancel():
                self.end("canceled", now)
            case Fail():
                self.end("failed", now)
            case Retry(seconds=delay) if self.attempt >= self.max_attempts:
                self.end("failed", now)
            case Retry(seconds=delay) | Snooze(seconds=delay):
                if self.cancel_requested:
                    self.end("canceled", now)
                else:
                    self.attempt -= isinstance(outcome, Snooze)
                    self.queue_again(now + delay)


@dataclass
class ModelQueue:
    paused: bool = False
    concurrency: int | None = None


@dataclass
class Model:
    """What there should be."""

    now: float = 0.0
    jobs: dict[str, ModelJob] = field(default_factory=dict)
    queues: dict[str, ModelQueue] = field(default_factory=dict)
    keys: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Whose each key is for a period, and until when."""

    def live_with(self, key: str | None) -> ModelJob | None:
        return next((job for job in self.jobs.values() if job.live and key and job.new.dedupe_key == key), None)

    def holder(self, lease: Lease) -> ModelJob | None:
        return next((job for job in self.jobs.values() if job.lease == lease), None)

    def key_holder(self, key: str | None) -> str | None:
        """Return the job that has a key for a period, be it live or not."""
        job_id, until = self.keys.get(key or "", ("", 0.0))
        return job_id if until > self.now else None

    def enqueue(self, new: NewJob, run_at: float) -> str:
        live = self.live_with(new.dedupe_key)
        if live is None:
            if (holder := self.key_holder(new.dedupe_key)) is not None:
                return holder
            if new.dedupe_key and new.dedupe_period:
                self.keys[new.dedupe_key] = new.id, self.now + new.dedupe_period.total_seconds()
            self.jobs[new.id] = ModelJob(new, run_at, run_at, new.queue, new.priority, new.max_attempts)
            return new.id
        if new.on_conflict is OnConflict.REPLACE:
            live.queue, live.priority, live.max_attempts = new.queue, new.priority, new.max_attempts
            live.renew(run_at)
        elif live.status == "running":
            live.rerun = run_at
        return live.new.id

    def room(self, name: str, limit: int) -> int:
        queue = self.queues[name]
        if queue.paused:
            return 0
        if queue.concurrency is None:
            return limit
        running = [job for job in self.jobs.values() if job.live and job.queue == name and job.worker is not None]
        return max(0, min(limit, queue.concurrency - sum(job.due > self.now for job in running)))

    def due(self, queue: str, *, suspects: bool) -> list[ModelJob]:
        found = [
            job
            for job in self.jobs.values()
            if job.live and job.queue == queue and job.due <= self.now and (job.suspicion >= 2) == suspects
        ]
        return sorted(found, key=lambda job: (job.priority, job.due, job.new.id))

    def lease(self, jobs: list[ModelJob], worker: str) -> list[ModelJob]:
        """Lease jobs, and return those that may run; the others end."""
        fit = []
        for job in jobs:
            job.crashes += job.worker is not None
            job.worker, job.due = worker, self.now + LEASE_SECONDS
            if job.cancel_requested or job.attempt >= job.max_attempts:
                job.status, job.lease = "canceled" if job.cancel_requested else "failed", None
                job.ended_at = self.now
            else:
                job.status, job.attempt = "running", job.attempt + 1
                fit.append(job)
        return fit

    def claim(self, worker: str, limit: int) -> tuple[list[ModelJob], list[ModelJob], bool]:
        """Return what is handed out, the suspect among it, and whether some ended instead."""
        claimed: list[ModelJob] = []
        suspect: list[ModelJob] = []
        ended = False
        for queue in self.queues:
            found = self.due(queue, suspects=False)[: self.room(queue, limit - len(claimed))]
            fit = self.lease(found, worker)
            claimed += fit
            ended = ended or len(fit) < len(found)
        if len(claimed) < limit:
            for queue in self.queues:
                if not suspect:
                    found = self.due(queue, suspects=True)[: self.room(queue, 1)]
                    suspect = self.lease(found, worker)
                    ended = ended or len(suspect) < len(found)
        return claimed, suspect, ended

    def next_due_in(self) -> float | None:
        waiting = [
            job.due - self.now
            for job in self.jobs.values()
            if job.live and job.due > self.now and self.room(job.queue, 1) > 0
        ]
        return min(waiting, default=None)

    def prune(self, status: str, age: float) -> None:
        """Forget jobs that have ended so long ago, but those with whom somebody may be answered."""
        for job in list(self.jobs.values()):
            held = self.key_holder(job.new.dedupe_key) == job.new.id
            if job.status == status and job.ended_at < self.now - age and not held:
                del self.jobs[job.new.id]

    def prune_keys(self) -> None:
        self.keys = {key: (job_id, until) for key, (job_id, until) in self.keys.items() if until > self.now}
