"""Jobs beside a model: whatever is done to them, in whatever order, both say the same.

The model is as simple as can be: a dictionary, no fences but the leases themselves. What it would not catch, it is no
model of; so it was tried, on copies of the tree with one thing changed in each: without the comparison of fences, or of
the status, in any one statement that makes it, with a claim that counts no attempt or no crash, minds neither pause nor
limit, or does not take priorities in their order, with a renewal that leaves the attempts as they were, with a key that
is held for no period or beyond it, and with pruning that takes jobs of another status, too young, or that still have
their key, it fails on both back ends.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import initialize, invariant, precondition, rule

from promptpipe.model.errors import AlreadyExistsError, PreconditionError
from promptpipe.model.ids import JobId, WorkerId
from promptpipe.model.jobs import (
    Cancel,
    Ending,
    Fail,
    Finish,
    JobFailure,
    JobStatus,
    NewJob,
    OnConflict,
    Retry,
    Snooze,
)
from tests.support.database import LEASE_SECONDS
from tests.support.jobs import Model, ModelJob, ModelQueue
from tests.support.stories import Story, tell_on_postgres, tell_on_sqlite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from promptpipe.model.jobs import LeasedJob, Outcome
    from promptpipe.model.leases import Lease

QUEUES = ("x", "y")
BOOM = JobFailure(type="E", message="m")
WORKERS = st.sampled_from(["worker-a", "worker-b"])
DELAYS = st.sampled_from([0.0, 1.0, 7.0, 40.0])
PERIODS = st.sampled_from([None, 5.0, 20.0, 90.0])
OUTCOMES: st.SearchStrategy[Outcome] = st.one_of(
    st.just(Finish()),
    st.just(Cancel()),
    st.just(Fail(BOOM)),
    st.builds(Retry, DELAYS, st.just(BOOM)),
    st.builds(Snooze, DELAYS),
)


class JobsBesideAModel(Story):
    """Each rule does the same to the store and to the model."""

    @initialize()
    def begin(self) -> None:
        self.model = Model(queues={queue: ModelQueue() for queue in QUEUES})
        self.leases: list[Lease] = []
        for number in range(4):
            new = NewJob(id=JobId(self.db.new_id()), kind="test", run_at=self.began, queue=QUEUES[number % 2])
            self.portal(self.db.store.jobs.enqueue, new)
            self.model.enqueue(new, 0.0)

    def new(self, data: st.DataObject) -> tuple[NewJob, float]:
        delay = data.draw(DELAYS)
        key = data.draw(st.sampled_from([None, "a", "b"]))
        period = data.draw(PERIODS) if key else None
        return NewJob(
            id=JobId(self.db.new_id()),
            kind="test",
            run_at=self.db.clock.now() + timedelta(seconds=delay),
            queue=data.draw(st.sampled_from(QUEUES)),
            priority=data.draw(st.integers(0, 3)),
            dedupe_key=key,
            dedupe_period=None if period is None else timedelta(seconds=period),
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
        self.finish_these(endings)

    def finish_these(self, endings: list[Ending]) -> None:
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

    def held_by_another(self, job: ModelJob) -> bool:
        return self.model.key_holder(job.new.dedupe_key) not in {None, job.new.id}

    @rule(
        status=st.sampled_from([JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELED]),
        age=st.sampled_from([0.0, 5.0]),
    )
    def prune(self, status: JobStatus, age: float) -> None:
        prune_history = self.db.store.maintenance.prune_history
        self.to_the_end(lambda after: self.portal(prune_history, status, timedelta(seconds=age), after))
        self.model.prune(status.value, age)

    @rule()
    def prune_keys(self) -> None:
        self.to_the_end(lambda after: self.portal(self.db.store.maintenance.prune_job_keys, after))
        self.model.prune_keys()

    @rule(data=st.data(), ending=st.sampled_from([(Finish(), JobStatus.DONE), (Fail(BOOM), JobStatus.FAILED)]))
    def work_off(self, data: st.DataObject, ending: tuple[Outcome, JobStatus]) -> None:
        """End what is due, and come back with the same keys when its history may go."""
        self.claim_later("worker-a", 5)
        for lease in [job.lease for job in self.model.jobs.values() if job.lease is not None]:
            self.finish_these([Ending(lease, ending[0])])
        self.pass_time(7.0)
        self.prune(ending[1], 5.0)
        self.enqueue_many(data, 3)

    def to_the_end(self, prune: Callable[[object], object]) -> None:
        after: object = None
        while (after := prune(after)) is not None:
            pass

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = self.model.jobs[data.draw(st.sampled_from(sorted(self.model.jobs)))]
        self.portal(self.db.store.jobs.cancel, job.new.id)
        if job.status == "queued":
            job.status, job.ended_at = "canceled", self.model.now
        elif job.status == "running":
            job.cancel_requested = True

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        ended = [job_id for job_id, job in self.model.jobs.items() if job.status in {"failed", "canceled"}]
        job = self.model.jobs[
            data.draw(st.sampled_from(sorted(self.model.jobs)) | st.sampled_from(ended or sorted(self.model.jobs)))
        ]
        if job.status in {"running", "done"}:
            with pytest.raises(PreconditionError):
                self.portal(self.db.store.jobs.retry, job.new.id)
        elif job.live:
            self.portal(self.db.store.jobs.retry, job.new.id)
            job.due = job.run_at = self.model.now
        elif self.model.live_with(job.new.dedupe_key) or self.held_by_another(job):
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

    def keys_held(self) -> dict[str, tuple[str, float | None]]:
        rows = self.db.rows("SELECT key, job_id, until FROM job_dedupe")
        return {key: (job_id, self.seconds(until)) for key, job_id, until in rows}

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
        assert self.keys_held() == self.model.keys


def test_jobs_on_sqlite(tmp_path: Path) -> None:
    """Forty-five stories of fifty steps."""
    tell_on_sqlite(JobsBesideAModel, tmp_path, stories=45)


def test_jobs_on_postgres(shared_database: str) -> None:
    """The same stories."""
    tell_on_postgres(JobsBesideAModel, shared_database, stories=45)
