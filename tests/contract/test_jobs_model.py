"""Jobs beside a model: whatever is done to them, in whatever order, both say the same.

The model is as simple as can be: a dictionary, no fences but the leases themselves. What it would not catch, it is no
model of; so it was tried: without the comparison of fences in `finish_jobs`, `held_jobs` or `extend_jobs`, or of the
status in the latter two, with a `claim_jobs` that counts no attempt or no crash, minds neither pause nor limit, or
does not take priorities in their order, and with a `renew_job` that leaves the attempts as they were, it fails on both
back ends.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import hypothesis.strategies as st
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from promptpipe.model.errors import AlreadyExistsError, PreconditionError
from promptpipe.model.ids import JobId, WorkerId
from promptpipe.model.jobs import (
    Cancel,
    Ending,
    Fail,
    Finish,
    JobFailure,
    NewJob,
    OnConflict,
    Retry,
    Snooze,
)
from tests.support.database import EMPTY_EVERYTHING, LEASE_SECONDS, PostgresTestDatabase, SqliteTestDatabase
from tests.support.portal import opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from promptpipe.model.jobs import LeasedJob, Outcome
    from promptpipe.model.leases import Lease
    from tests.support.database import Database

QUEUES = ("x", "y")
BOOM = JobFailure(type="E", message="m")
WORKERS = st.sampled_from(["worker-a", "worker-b"])
DELAYS = st.sampled_from([0.0, 1.0, 7.0, 40.0])
OUTCOMES: st.SearchStrategy[Outcome] = st.one_of(
    st.just(Finish()),
    st.just(Cancel()),
    st.just(Fail(BOOM)),
    st.builds(Retry, DELAYS, st.just(BOOM)),
    st.builds(Snooze, DELAYS),
)


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

    def end(self, status: str) -> None:
        if self.rerun is not None:
            self.renew(self.rerun)
        else:
            self.status, self.lease = status, None

    def apply(self, outcome: Outcome, now: float) -> None:
        match outcome:
            case Finish():
                self.end("done")
            case Cancel():
                self.end("canceled")
            case Fail():
                self.end("failed")
            case Retry(seconds=delay) if self.attempt >= self.max_attempts:
                self.end("failed")
            case Retry(seconds=delay) | Snooze(seconds=delay):
                if self.cancel_requested:
                    self.end("canceled")
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
    queues: dict[str, ModelQueue] = field(default_factory=lambda: {queue: ModelQueue() for queue in QUEUES})

    def live_with(self, key: str | None) -> ModelJob | None:
        return next((job for job in self.jobs.values() if job.live and key and job.new.dedupe_key == key), None)

    def holder(self, lease: Lease) -> ModelJob | None:
        return next((job for job in self.jobs.values() if job.lease == lease), None)

    def enqueue(self, new: NewJob, run_at: float) -> str:
        live = self.live_with(new.dedupe_key)
        if live is None:
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
            else:
                job.status, job.attempt = "running", job.attempt + 1
                fit.append(job)
        return fit

    def claim(self, worker: str, limit: int) -> tuple[list[ModelJob], list[ModelJob], bool]:
        """Return what is handed out, the suspect among it, and whether some ended instead."""
        claimed: list[ModelJob] = []
        suspect: list[ModelJob] = []
        ended = False
        for queue in QUEUES:
            found = self.due(queue, suspects=False)[: self.room(queue, limit - len(claimed))]
            fit = self.lease(found, worker)
            claimed += fit
            ended = ended or len(fit) < len(found)
        if len(claimed) < limit:
            for queue in QUEUES:
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


class JobsBesideAModel(RuleBasedStateMachine):
    """Each rule does the same to the store and to the model."""

    make: Callable[[], Database]

    @initialize()
    def open(self) -> None:
        self.stack = ExitStack()
        self.db, self.portal = self.stack.enter_context(opened(type(self).make))
        self.start = self.db.clock.now()
        self.model = Model()
        self.leases: list[Lease] = []
        for number in range(4):
            new = NewJob(id=JobId(self.db.new_id()), kind="test", run_at=self.start, queue=QUEUES[number % 2])
            self.portal(self.db.store.jobs.enqueue, new)
            self.model.enqueue(new, 0.0)

    def teardown(self) -> None:
        self.stack.close()

    def new(self, data: st.DataObject) -> tuple[NewJob, float]:
        delay = data.draw(DELAYS)
        return NewJob(
            id=JobId(self.db.new_id()),
            kind="test",
            run_at=self.db.clock.now() + timedelta(seconds=delay),
            queue=data.draw(st.sampled_from(QUEUES)),
            priority=data.draw(st.integers(0, 3)),
            dedupe_key=data.draw(st.sampled_from([None, None, "a", "b"])),
            on_conflict=data.draw(st.sampled_from(OnConflict)),
            max_attempts=data.draw(st.integers(1, 3)),
        ), self.model.now + delay

    @rule(data=st.data())
    def enqueue(self, data: st.DataObject) -> None:
        new, run_at = self.new(data)
        job, created = self.portal(self.db.store.jobs.enqueue, new)
        expected = self.model.enqueue(new, run_at)
        assert (job.id, created) == (expected, expected == new.id)

    @rule(data=st.data(), number=st.integers(0, 5))
    def enqueue_many(self, data: st.DataObject, number: int) -> None:
        news = [self.new(data) for _ in range(number)]
        results = self.portal(self.db.store.jobs.enqueue_many, [new for new, _ in news])
        expected = [self.model.enqueue(new, run_at) for new, run_at in news]
        assert [job_id for job_id, _ in results] == expected

    @rule(worker=WORKERS, limit=st.integers(1, 5))
    def claim_later(self, worker: str, limit: int) -> None:
        self.pass_time(31.0)
        self.claim(worker, limit)

    @rule(worker=WORKERS, limit=st.integers(1, 5))
    def claim(self, worker: str, limit: int) -> None:
        claimed = self.portal(self.db.store.jobs.claim, self.db.claim(limit, worker=worker, queues=QUEUES))
        items, suspects, ended = self.model.claim(worker, limit)
        self.note(list(claimed.items), items)
        self.note([] if claimed.suspect is None else [claimed.suspect], suspects)
        assert claimed.next_due_in == (0.0 if ended else self.model.next_due_in())

    def note(self, leased: list[LeasedJob], expected: list[ModelJob]) -> None:
        assert sorted(item.job.id for item in leased) == sorted(job.new.id for job in expected)
        for item in leased:
            job = self.model.jobs[item.job.id]
            assert (item.job.attempt, item.job.max_attempts) == (job.attempt, job.max_attempts)
            assert item.lease not in self.leases
            job.lease = item.lease
            self.leases.append(item.lease)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), outcomes=st.lists(OUTCOMES, min_size=1, max_size=4))
    def finish(self, data: st.DataObject, outcomes: list[Outcome]) -> None:
        some = data.draw(st.lists(self.any_lease(), min_size=1, max_size=len(outcomes), unique_by=lambda it: it.key))
        endings = [Ending(*pair) for pair in zip(some, outcomes, strict=False)]
        lost = self.portal(self.db.store.jobs.finish, endings)
        assert lost == {ending.lease for ending in endings if self.model.holder(ending.lease) is None}
        for ending in endings:
            if (job := self.model.holder(ending.lease)) is not None:
                job.apply(ending.outcome, self.model.now)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), outcome=OUTCOMES)
    def finish_one(self, data: st.DataObject, outcome: Outcome) -> None:
        self.finish(data, [outcome])

    def any_lease(self) -> st.SearchStrategy[Lease]:
        """Return one that is held, or was: of those jobs that run under another now, too."""
        running = {job.new.id for job in self.model.jobs.values() if job.status == "running"}
        stale = [lease for lease in self.leases if lease.key in running and self.model.holder(lease) is None]
        return st.sampled_from(self.leases) | st.sampled_from(stale or self.leases)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def extend(self, data: st.DataObject) -> None:
        some = data.draw(st.lists(self.any_lease(), min_size=1, unique_by=lambda lease: lease.key))
        extension = self.portal(self.db.store.leases.extend, some, LEASE_SECONDS)
        held = {lease: self.model.holder(lease) for lease in some}
        assert extension.lost == {lease for lease, job in held.items() if job is None}
        assert extension.cancel_requested == {
            lease for lease, job in held.items() if job is not None and job.cancel_requested
        }
        for job in held.values():
            if job is not None:
                job.due = self.model.now + LEASE_SECONDS

    @rule(worker=WORKERS)
    def give_back(self, worker: str) -> None:
        held = [job for job in self.model.jobs.values() if job.live and job.worker == worker]
        assert self.portal(self.db.store.leases.give_back, WorkerId(worker)) == len(held)
        for job in held:
            job.attempt -= 1
            job.queue_again(self.model.now)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = self.model.jobs[data.draw(st.sampled_from(sorted(self.model.jobs)))]
        self.portal(self.db.store.jobs.cancel, job.new.id)
        if job.status == "queued":
            job.status = "canceled"
        elif job.status == "running":
            job.cancel_requested = True

    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        job = self.model.jobs[data.draw(st.sampled_from(sorted(self.model.jobs)))]
        if job.status in {"running", "done"}:
            with pytest.raises(PreconditionError):
                self.portal(self.db.store.jobs.retry, job.new.id)
        elif job.live:
            self.portal(self.db.store.jobs.retry, job.new.id)
            job.due = job.run_at = self.model.now
        elif self.model.live_with(job.new.dedupe_key):
            with pytest.raises(AlreadyExistsError):
                self.portal(self.db.store.jobs.retry, job.new.id)
        else:
            self.portal(self.db.store.jobs.retry, job.new.id)
            job.renew(self.model.now)

    @rule(
        queue=st.sampled_from(QUEUES),
        concurrency=st.sampled_from([None, 1, 1, 2]),
        paused=st.sampled_from([False, False, True]),
    )
    def treat(self, queue: str, concurrency: int | None, *, paused: bool) -> None:
        queues = self.db.store.queues
        self.portal(queues.pause if paused else queues.resume, queue)
        self.portal(queues.limit, queue, concurrency)
        self.model.queues[queue] = ModelQueue(paused, concurrency)

    @rule(seconds=st.sampled_from([1.0, 7.0, 31.0]))
    def pass_time(self, seconds: float) -> None:
        self.db.clock.advance(seconds)
        self.model.now += seconds

    @invariant()
    def same(self) -> None:
        live = self.db.rows(
            "SELECT id, status, attempt, crashes, queue, priority, max_attempts, worker, cancel_requested FROM jobs"
        )
        ended = self.db.rows("SELECT id, status, attempt FROM job_history")
        jobs = self.model.jobs.items()
        assert {row[0]: (*row[1:8], bool(row[8])) for row in live} == {
            job_id: (
                job.status,
                job.attempt,
                job.crashes,
                job.queue,
                job.priority,
                job.max_attempts,
                job.worker,
                job.cancel_requested,
            )
            for job_id, job in jobs
            if job.live
        }
        assert {row[0]: row[1:] for row in ended} == {
            job_id: (job.status, job.attempt) for job_id, job in jobs if not job.live
        }


BOUNDS = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=[Phase.generate],  # to make a failing story shorter takes minutes
)


def test_jobs_on_sqlite(tmp_path: Path) -> None:
    """Sixty stories of fifty steps."""
    files = iter(range(100_000))
    make = staticmethod(lambda: SqliteTestDatabase(tmp_path / f"{next(files)}.db"))
    machine = type("OnSqlite", (JobsBesideAModel,), {"make": make})
    run_state_machine_as_test(machine, settings=BOUNDS)


def test_jobs_on_postgres(shared_database: str) -> None:
    """The same stories."""

    def empty() -> Database:
        with psycopg.connect(shared_database) as connection:
            connection.execute(EMPTY_EVERYTHING)
        return PostgresTestDatabase(shared_database)

    machine = type("OnPostgres", (JobsBesideAModel,), {"make": staticmethod(empty)})
    run_state_machine_as_test(machine, settings=BOUNDS)
