"""`JobService`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.ids import JobId, ParticipantId
from promptpipe.model.jobs import JobStatus, OnConflict
from promptpipe.model.listing import JobFilter
from promptpipe.rpc import convert
from promptpipe.rpc.paging import next_page_token, page_request
from promptpipe.rpc.pb.promptpipe import v1
from promptpipe.services.jobs import JobRequest

if TYPE_CHECKING:
    from promptpipe.services.jobs import Jobs, Queues


class JobHandlers(v1.JobServiceBase):
    """See `jobs.proto`."""

    def __init__(self, jobs: Jobs, queues: Queues) -> None:
        self._jobs = jobs
        self._queues = queues

    async def enqueue_job(self, message: v1.EnqueueJobRequest) -> v1.EnqueueJobResponse:
        """Add a job."""
        request = JobRequest(
            kind=message.kind,
            queue=message.queue,
            run_at=message.run_at,
            payload=convert.json_object("payload", message.payload),
            dedupe_key=message.dedupe_key,
            dedupe_period=message.dedupe_period,
            on_conflict=convert.enum_value("on_conflict", message.on_conflict, OnConflict) or OnConflict.KEEP,
            max_attempts=message.max_attempts,
            priority=message.priority,
            participant_id=_participant(message.participant_id),
        )
        job, created = await self._jobs.enqueue(request)
        return v1.EnqueueJobResponse(job=convert.job(job), created=created)

    async def get_job(self, message: v1.GetJobRequest) -> v1.GetJobResponse:
        """Return a job."""
        return v1.GetJobResponse(job=convert.job(await self._jobs.get(JobId(message.job_id))))

    async def list_jobs(self, message: v1.ListJobsRequest) -> v1.ListJobsResponse:
        """List jobs."""
        wanted = JobFilter(
            status=convert.enum_value("status", message.status, JobStatus),
            kind=message.kind,
            queue=message.queue,
            participant_id=_participant(message.participant_id),
        )
        page = await self._jobs.list(wanted, page_request(message))
        return v1.ListJobsResponse(
            jobs=[convert.job(job) for job in page.items], next_page_token=next_page_token(message, page)
        )

    async def cancel_job(self, message: v1.CancelJobRequest) -> v1.CancelJobResponse:
        """End a job."""
        return v1.CancelJobResponse(job=convert.job(await self._jobs.cancel(JobId(message.job_id))))

    async def retry_job(self, message: v1.RetryJobRequest) -> v1.RetryJobResponse:
        """Run a job again."""
        return v1.RetryJobResponse(job=convert.job(await self._jobs.retry(JobId(message.job_id))))

    async def reschedule_job(self, message: v1.RescheduleJobRequest) -> v1.RescheduleJobResponse:
        """Give a job another time."""
        job = await self._jobs.reschedule(JobId(message.job_id), message.run_at)
        return v1.RescheduleJobResponse(job=convert.job(job))

    async def get_job_stats(self, message: v1.GetJobStatsRequest) -> v1.GetJobStatsResponse:
        """Count jobs."""
        queues = await self._queues.stats(message.queue)
        return v1.GetJobStatsResponse(queues=[convert.queue(queue) for queue in queues])

    async def pause_queue(self, message: v1.PauseQueueRequest) -> v1.PauseQueueResponse:
        """Stop claims."""
        await self._queues.pause(message.queue)
        return v1.PauseQueueResponse()

    async def resume_queue(self, message: v1.ResumeQueueRequest) -> v1.ResumeQueueResponse:
        """Go on claiming."""
        await self._queues.resume(message.queue)
        return v1.ResumeQueueResponse()

    async def limit_queue(self, message: v1.LimitQueueRequest) -> v1.LimitQueueResponse:
        """Bound what runs at the same time."""
        await self._queues.limit(message.queue, message.concurrency)
        return v1.LimitQueueResponse()


def _participant(value: str | None) -> ParticipantId | None:
    return None if value is None else ParticipantId(value)
