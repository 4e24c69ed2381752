"""JobService: times and queues."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from grpclib.const import Status

from promptpipe.client import v1
from promptpipe.model.leases import Claim
from tests.support.admin import open_admin, refused, resource, violation

if TYPE_CHECKING:
    from tests.support.admin import Admin
    from tests.support.service import Home

LATER = datetime(2100, 1, 1, tzinfo=UTC)


async def claimed(admin: Admin, limit: int = 10) -> list[str]:
    claim = Claim(worker=admin.components.worker, limit=limit, seconds=30)
    return [leased.job.id for leased in (await admin.components.store.jobs.claim(claim)).items]


async def stats(admin: Admin, queue: str | None = None) -> dict[str, v1.GetJobStatsResponseQueue]:
    answer = await admin.jobs.get_job_stats(v1.GetJobStatsRequest(queue=queue))
    return {item.name: item for item in answer.queues}


async def test_queued_job_gets_another_time(home: Home) -> None:
    """The answer is the job as it stands now; one that runs keeps its own."""
    async with open_admin(home) as admin:
        job = await admin.enqueue(dedupe_key="k", run_at=LATER)
        sooner = LATER - timedelta(days=365)
        moved = (await admin.jobs.reschedule_job(v1.RescheduleJobRequest(job_id=job.id, run_at=sooner))).job
        assert moved is not None
        assert (moved.status, moved.run_at, moved.dedupe_key) == (v1.JobStatus.QUEUED, sooner, "k")
        running = await admin.enqueue()
        assert await claimed(admin) == [running.id]
        call = admin.jobs.reschedule_job(v1.RescheduleJobRequest(job_id=running.id, run_at=LATER))
        assert (await refused(call, Status.FAILED_PRECONDITION)).message == f"the job {running.id} is running"


async def test_key_is_held_for_a_period(home: Home) -> None:
    """Who asks again gets the job that is done."""
    async with open_admin(home) as admin:
        request = v1.EnqueueJobRequest(kind="noop", dedupe_key="k", dedupe_period=timedelta(hours=1))
        first = await admin.jobs.enqueue_job(request)
        assert first.job is not None
        await admin.jobs.cancel_job(v1.CancelJobRequest(job_id=first.job.id))
        again = await admin.jobs.enqueue_job(request)
        assert again.job is not None
        assert (first.created, again.created, again.job.id) == (True, False, first.job.id)
        assert again.job.status is v1.JobStatus.CANCELED


@pytest.mark.parametrize("period", [timedelta(), timedelta(seconds=-1), timedelta(days=30, microseconds=1)])
async def test_bad_period_is_refused(home: Home, period: timedelta) -> None:
    """It is more than nothing, at most thirty days, and that of a key."""
    async with open_admin(home) as admin:
        rule = "must be more than 0 and at most 30 days"
        refusal = await refused(admin.enqueue(dedupe_key="k", dedupe_period=period), Status.INVALID_ARGUMENT)
        assert violation(refusal) == ("dedupe_period", rule)
        await admin.enqueue(dedupe_key="k", dedupe_period=timedelta(days=30))
        for other in ({}, {"dedupe_key": ""}):
            call = admin.enqueue(dedupe_period=timedelta(1), **other)
            assert violation(await refused(call, Status.INVALID_ARGUMENT))[0] == "dedupe_period"


async def test_reschedule_needs_a_time_and_a_job(home: Home) -> None:
    """INVALID_ARGUMENT by its field; NOT_FOUND with the id."""
    async with open_admin(home) as admin:
        job = await admin.enqueue(run_at=LATER)
        call = admin.jobs.reschedule_job(v1.RescheduleJobRequest(job_id=job.id))
        assert violation(await refused(call, Status.INVALID_ARGUMENT)) == ("run_at", "must be given")
        call = admin.jobs.reschedule_job(v1.RescheduleJobRequest(job_id="x", run_at=LATER))
        assert resource(await refused(call, Status.NOT_FOUND)) == ("job", "x")


async def test_paused_queue_stands_until_it_is_resumed(home: Home) -> None:
    """For whoever claims from it."""
    async with open_admin(home) as admin:
        job = await admin.enqueue()
        await admin.jobs.pause_queue(v1.PauseQueueRequest(queue="default"))
        assert await claimed(admin) == []
        assert (await stats(admin))["default"].paused
        await admin.jobs.resume_queue(v1.ResumeQueueRequest(queue="default"))
        assert await claimed(admin) == [job.id]
        assert not (await stats(admin))["default"].paused


async def test_limited_queue_runs_so_many_at_once(home: Home) -> None:
    """Until the limit is taken away."""
    async with open_admin(home) as admin:
        for _ in range(5):
            await admin.enqueue()
        await admin.jobs.limit_queue(v1.LimitQueueRequest(queue="default", concurrency=2))
        assert (len(await claimed(admin)), (await stats(admin))["default"].concurrency) == (2, 2)
        await admin.jobs.limit_queue(v1.LimitQueueRequest(queue="default"))
        assert (len(await claimed(admin)), (await stats(admin))["default"].concurrency) == (3, None)


async def test_stats_say_what_there_is_to_do(home: Home) -> None:
    """By queue, in the order of names; or of one queue."""
    async with open_admin(home) as admin:
        assert await stats(admin) == {}
        for run_at in (None, None, LATER):
            await admin.enqueue(run_at=run_at)
        await claimed(admin, 1)
        await admin.jobs.pause_queue(v1.PauseQueueRequest(queue="a/new:queue_1.x-y"))
        counted = await stats(admin)
        assert list(counted) == ["a/new:queue_1.x-y", "default"]
        queue = counted["default"]
        assert (queue.scheduled, queue.ready, queue.running, queue.failed) == (1, 1, 1, 0)
        assert queue.lag is not None
        assert timedelta() <= queue.lag < timedelta(seconds=30)
        assert list(await stats(admin, "default")) == ["default"]


@pytest.mark.parametrize("name", ["", "a b", "a,b", "x" * 101, "é", "a\x00b", "a\n"])
async def test_bad_name_of_a_queue_is_refused(home: Home, name: str) -> None:
    """By every method, and nothing was said of it."""
    async with open_admin(home) as admin:
        calls: list[Any] = [
            admin.jobs.pause_queue(v1.PauseQueueRequest(queue=name)),
            admin.jobs.resume_queue(v1.ResumeQueueRequest(queue=name)),
            admin.jobs.limit_queue(v1.LimitQueueRequest(queue=name)),
            admin.jobs.get_job_stats(v1.GetJobStatsRequest(queue=name)),
        ]
        for call in calls:
            assert violation(await refused(call, Status.INVALID_ARGUMENT))[0] == "queue"
        assert await stats(admin) == {}


@pytest.mark.parametrize("concurrency", [0, -1])
async def test_limit_is_at_least_one(home: Home, concurrency: int) -> None:
    """To stop a queue is to pause it."""
    async with open_admin(home) as admin:
        call = admin.jobs.limit_queue(v1.LimitQueueRequest(queue="default", concurrency=concurrency))
        assert violation(await refused(call, Status.INVALID_ARGUMENT))[0] == "concurrency"
        assert await stats(admin) == {}


async def test_instance_takes_jobs_of_the_queues_that_it_serves(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """And of no others, which it names."""
    monkeypatch.setenv("PROMPTPIPE_QUEUES", "default, slow")
    async with open_admin(home) as admin:
        assert (await admin.enqueue(queue="slow")).queue == "slow"
        error = await refused(admin.enqueue(queue="fast"), Status.INVALID_ARGUMENT)
        assert violation(error) == ("queue", "must be one of: default, slow")
