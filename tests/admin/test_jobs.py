"""JobService."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from promptpipe.client import v1
from promptpipe.flows.conversation.timers import TIMERS
from promptpipe.model.leases import Claim
from promptpipe.rpc.convert import struct
from tests.support.admin import open_admin, refused, resource, violation

if TYPE_CHECKING:
    from tests.support.service import Home

LATER = datetime(2100, 1, 1, tzinfo=UTC)


async def test_job_is_enqueued_with_what_was_asked_for(home: Home) -> None:
    """And comes back as it went, by id."""
    async with open_admin(home) as admin:
        payload = {"n": 3, "half": 0.5, "deep": [{"on": True}, None, "é"]}
        job = await admin.enqueue(
            run_at=LATER, payload=struct(payload), dedupe_key="k", max_attempts=2, priority=0, queue="default"
        )
        assert (job.kind, job.queue, job.status, job.run_at) == ("noop", "default", v1.JobStatus.QUEUED, LATER)
        assert (job.dedupe_key, job.max_attempts, job.priority, job.attempt) == ("k", 2, 0, 0)
        assert job.payload is not None
        assert job.payload.to_dict() == payload
        stored = await admin.components.store.jobs.get(job.id)  # type: ignore[arg-type]
        assert (stored.payload, type(stored.payload["n"])) == (payload, int)
        assert (await admin.jobs.get_job(v1.GetJobRequest(job_id=job.id))).job == job


async def test_job_without_wishes_has_the_defaults(home: Home) -> None:
    """Now, in the default queue, at the default priority."""
    async with open_admin(home) as admin:
        job = await admin.enqueue()
        assert (job.queue, job.priority, job.max_attempts, job.dedupe_key) == ("default", 1, 20, "")
        assert job.run_at is not None
        assert job.created_at is not None
        assert job.run_at <= job.created_at


async def test_same_key_twice_is_one_job(home: Home) -> None:
    """Created the first time; kept, or replaced, the second."""
    async with open_admin(home) as admin:
        first = await admin.jobs.enqueue_job(v1.EnqueueJobRequest(kind="noop", run_at=LATER, dedupe_key="k"))
        kept = await admin.jobs.enqueue_job(v1.EnqueueJobRequest(kind="noop", dedupe_key="k"))
        assert (first.created, kept.created, kept.job) == (True, False, first.job)
        replace = v1.EnqueueJobRequestOnConflict.REPLACE
        request = v1.EnqueueJobRequest(kind="noop", dedupe_key="k", on_conflict=replace, payload=struct({"a": 1}))
        replaced = await admin.jobs.enqueue_job(request)
        assert replaced.job is not None
        assert first.job is not None
        assert (replaced.created, replaced.job.id, replaced.job.run_at == LATER) == (False, first.job.id, False)


async def test_timer_belongs_to_a_participant(home: Home) -> None:
    """One that exists; and other kinds belong to nobody."""
    async with open_admin(home) as admin:
        ada = await admin.enroll()
        timer = await admin.enqueue("daily_prompt_reminder", participant_id=ada.id, run_at=LATER)
        assert timer.participant_id == ada.id
        nobody = admin.enqueue("daily_prompt_reminder", participant_id="nobody")
        assert resource(await refused(nobody, Status.NOT_FOUND)) == ("participant", "nobody")
        for call in (admin.enqueue("daily_prompt_reminder"), admin.enqueue("noop", participant_id=ada.id)):
            assert violation(await refused(call, Status.INVALID_ARGUMENT))[0] == "participant_id"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", ""),
        ("kind", "nop"),
        ("queue", "fast"),
        ("dedupe_key", "x" * 201),
        ("dedupe_key", "a\x00"),
        ("max_attempts", 0),
        ("max_attempts", 1001),
        ("max_attempts", -1),
        ("priority", 4),
        ("priority", -1),
        ("on_conflict", v1.EnqueueJobRequestOnConflict(7)),
        ("payload", struct({"big": "x" * 65_536})),
        ("payload", struct({"nul": "a\x00b"})),
        ("payload", struct({"nan": float("nan")})),
        ("payload", struct({"inf": float("inf")})),
    ],
)
async def test_bad_value_is_refused_by_name(home: Home, field: str, value: Any) -> None:
    """INVALID_ARGUMENT says which field, and which rule; nothing was enqueued."""
    async with open_admin(home) as admin:
        named, rule = violation(await refused(admin.enqueue(**{"kind": "noop", field: value}), Status.INVALID_ARGUMENT))
        assert (named, rule.startswith("must")) == (field, True)
        assert (await admin.jobs.list_jobs(v1.ListJobsRequest())).jobs == []


async def test_unknown_kind_is_answered_with_those_that_are_known(home: Home) -> None:
    """A slip of the pen is seen at once."""
    async with open_admin(home) as admin:
        error = await refused(admin.enqueue("nop"), Status.INVALID_ARGUMENT)
        known = [*(timer.kind for timer in TIMERS), "noop", "scheduled_prompt"]
        assert violation(error) == ("kind", f"must be one of: {', '.join(sorted(known))}")


async def test_canceled_job_can_be_retried(home: Home) -> None:
    """Both answer with the job as it stands."""
    async with open_admin(home) as admin:
        job = await admin.enqueue(run_at=LATER)
        canceled = (await admin.jobs.cancel_job(v1.CancelJobRequest(job_id=job.id))).job
        assert canceled is not None
        assert (canceled.status, canceled.finished_at is None) == (v1.JobStatus.CANCELED, False)
        retried = (await admin.jobs.retry_job(v1.RetryJobRequest(job_id=job.id))).job
        assert retried is not None
        assert (retried.status, retried.run_at == LATER, retried.finished_at) == (v1.JobStatus.QUEUED, False, None)


async def test_retry_of_what_is_done_is_no_possible_step(home: Home) -> None:
    """FAILED_PRECONDITION, and the text says why."""
    async with open_admin(home) as admin:
        job = await admin.enqueue()
        with_key = await admin.enqueue(run_at=LATER, dedupe_key="k")
        await admin.jobs.cancel_job(v1.CancelJobRequest(job_id=with_key.id))
        live = await admin.enqueue(run_at=LATER, dedupe_key="k")
        taken = admin.jobs.retry_job(v1.RetryJobRequest(job_id=with_key.id))
        assert resource(await refused(taken, Status.ALREADY_EXISTS)) == ("job", live.id)
        store = admin.components.store.jobs
        claim = Claim(worker=admin.components.worker, limit=1, seconds=30, held=(), suspect=False)
        await store.claim(claim)
        error = await refused(admin.jobs.retry_job(v1.RetryJobRequest(job_id=job.id)), Status.FAILED_PRECONDITION)
        assert error.message == f"the job {job.id} is running"


async def test_jobs_that_do_not_exist(home: Home) -> None:
    """NOT_FOUND, with the id in its details."""
    async with open_admin(home) as admin:
        for call in (
            admin.jobs.get_job(v1.GetJobRequest(job_id="x")),
            admin.jobs.cancel_job(v1.CancelJobRequest(job_id="x")),
            admin.jobs.retry_job(v1.RetryJobRequest(job_id="x")),
        ):
            assert resource(await refused(call, Status.NOT_FOUND)) == ("job", "x")


async def test_id_that_cannot_be_one_is_the_callers_fault(home: Home) -> None:
    """On PostgreSQL no text holds a NUL: nothing is found, or the value is refused; it is no failure of the service."""
    async with open_admin(home) as admin:
        for call in (
            admin.jobs.get_job(v1.GetJobRequest(job_id="a\x00b")),
            admin.jobs.retry_job(v1.RetryJobRequest(job_id="a\x00b")),
            admin.participants.get_participant(v1.GetParticipantRequest(participant_id="a\x00b")),
            admin.outbox.get_message(v1.GetMessageRequest(message_id="a\x00b")),
        ):
            with pytest.raises(GRPCError) as raised:
                await call
            assert raised.value.status in {Status.NOT_FOUND, Status.INVALID_ARGUMENT}
        await admin.enqueue()


async def test_list_is_narrowed_by_its_filters(home: Home) -> None:
    """Status, kind, queue, participant."""
    async with open_admin(home) as admin:
        ada = await admin.enroll()
        timer = await admin.enqueue("daily_prompt_reminder", participant_id=ada.id, run_at=LATER)
        job = await admin.enqueue(run_at=LATER)

        async def listed(**filters: Any) -> list[str]:
            return [item.id for item in (await admin.jobs.list_jobs(v1.ListJobsRequest(**filters))).jobs]

        assert await listed() == [job.id, timer.id]
        assert await listed(kind="noop") == [job.id]
        assert await listed(queue="other") == []
        assert await listed(participant_id=ada.id) == [timer.id]
        assert await listed(status=v1.JobStatus.DONE) == []
        assert await listed(status=v1.JobStatus.QUEUED) == [job.id, timer.id]


@pytest.mark.parametrize("token", ["x", "%%%", "W10=", "WyJ4IiwieSJd", "bnVsbA==", "é", "W" * 10_000])
async def test_token_that_is_none_of_this_list_is_refused(home: Home, token: str) -> None:
    """Whatever its bytes are."""
    async with open_admin(home) as admin:
        call = admin.jobs.list_jobs(v1.ListJobsRequest(page_token=token))
        assert violation(await refused(call, Status.INVALID_ARGUMENT))[0] == "page_token"


@pytest.mark.parametrize("after", [None, 5, ["x"], "a\x00b", "\ud800", "x" * 401])
async def test_forged_token_is_refused(home: Home, after: object) -> None:
    """Tokens are no secret; whatever somebody puts into one reaches no database."""
    async with open_admin(home) as admin:
        await admin.enqueue(run_at=LATER)
        await admin.enqueue(run_at=LATER)
        token = (await admin.jobs.list_jobs(v1.ListJobsRequest(page_size=1))).next_page_token
        fingerprint, _ = json.loads(base64.urlsafe_b64decode(token))
        forged = base64.urlsafe_b64encode(json.dumps([fingerprint, after]).encode()).decode()
        call = admin.jobs.list_jobs(v1.ListJobsRequest(page_token=forged))
        assert violation(await refused(call, Status.INVALID_ARGUMENT))[0] == "page_token"


async def test_page_has_at_most_200_items(home: Home) -> None:
    """Whatever is asked for: making a page keeps the service busy."""
    async with open_admin(home) as admin:
        for _ in range(201):
            await admin.enqueue(run_at=LATER)
        page = await admin.jobs.list_jobs(v1.ListJobsRequest(page_size=1000))
        assert (len(page.jobs), bool(page.next_page_token)) == (200, True)
        assert len((await admin.jobs.list_jobs(v1.ListJobsRequest())).jobs) == 50


async def test_token_of_another_list_is_refused(home: Home) -> None:
    """Other filters make another list; another size does not."""
    async with open_admin(home) as admin:
        for _ in range(3):
            await admin.enqueue(run_at=LATER)
        token = (await admin.jobs.list_jobs(v1.ListJobsRequest(page_size=1))).next_page_token
        more = await admin.jobs.list_jobs(v1.ListJobsRequest(page_size=5, page_token=token))
        assert len(more.jobs) == 2
        call = admin.jobs.list_jobs(v1.ListJobsRequest(page_token=token, kind="noop"))
        assert violation(await refused(call, Status.INVALID_ARGUMENT))[0] == "page_token"
        negative = admin.jobs.list_jobs(v1.ListJobsRequest(page_size=-1))
        assert violation(await refused(negative, Status.INVALID_ARGUMENT)) == ("page_size", "must not be negative")
