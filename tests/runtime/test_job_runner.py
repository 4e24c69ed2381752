"""The job runner: handlers, their endings, leases and limits."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import trio
from structlog.testing import capture_logs

from promptpipe.model.errors import FailJobError, SnoozeJobError
from promptpipe.model.ids import JobId, ParticipantId, WorkerId
from promptpipe.model.jobs import JobStatus, NewJob, OnConflict
from promptpipe.model.leases import Claim
from tests.support.runtime import kind_of, open_runtime, running
from tests.support.unreliable import Trouble

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from promptpipe.model.jobs import Job
    from tests.support.runtime import Runtime


async def enqueue(runtime: Runtime, kind: str = "work", **other: object) -> JobId:
    values: dict[str, object] = {"id": JobId(runtime.new_id()), "kind": kind, "run_at": runtime.clock.now(), **other}
    job, _ = await runtime.store.jobs.enqueue(NewJob(**values))  # type: ignore[arg-type]
    return job.id


async def status(runtime: Runtime, job_id: JobId) -> JobStatus:
    return (await runtime.store.jobs.get(job_id)).status


async def test_handler_is_called_when_its_job_is_due(tmp_path: Path, autojump_clock: MockClock) -> None:
    """With the payload, at the time."""
    seen = []

    async def handler(job: Job) -> None:
        await trio.lowlevel.checkpoint()
        seen.append((trio.current_time(), job.payload))

    async with open_runtime(tmp_path, kinds=[kind_of(handler)]) as runtime, running(runtime):
        at = runtime.clock.now() + timedelta(seconds=7.25)
        job_id = await enqueue(runtime, run_at=at, payload={"n": 1})
        await trio.sleep(10)
        assert seen == [(7.25, {"n": 1})]
        assert await status(runtime, job_id) is JobStatus.DONE


async def test_no_more_jobs_run_at_once_than_there_are_slots(tmp_path: Path, autojump_clock: MockClock) -> None:
    """And all of them run."""
    under_way, most, done = 0, 0, 0

    async def handler(_: Job) -> None:
        nonlocal under_way, most, done
        under_way += 1
        most = max(most, under_way)
        await trio.sleep(1)
        under_way -= 1
        done += 1

    async with open_runtime(tmp_path, kinds=[kind_of(handler)], slots=3) as runtime, running(runtime):
        for _ in range(10):
            await enqueue(runtime)
        await trio.sleep(60)
        assert (most, done) == (3, 10)


async def test_backlog_in_one_queue_keeps_no_other_waiting(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Every queue is first in turn: a job of the small one starts as soon as a slot or two are free."""
    started: dict[str, list[float]] = {"big": [], "small": [], "other": []}

    async def handler(job: Job) -> None:
        started[job.queue].append(trio.current_time())
        await trio.sleep(1)

    queues = ["big", "small"]
    async with open_runtime(tmp_path, kinds=[kind_of(handler)], slots=2, queues=queues) as runtime:
        for _ in range(50):
            await enqueue(runtime, queue="big")
        async with running(runtime):
            await trio.sleep(3.5)
            for queue in ("small", "other"):
                await enqueue(runtime, queue=queue)
            await trio.sleep(30)
    assert [at < 6 for at in started["small"]] == [True]
    assert (len(started["big"]), started["other"]) == (50, [])


async def test_suspects_run_one_at_a_time(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Beside the others, but never two together: a killer takes no other suspect with it."""
    under_way: list[str] = []
    together: list[set[str]] = []

    async def handler(job: Job) -> None:
        under_way.append(str(job.payload["name"]))
        together.append(set(under_way))
        await trio.sleep(5)
        under_way.remove(str(job.payload["name"]))

    async with open_runtime(tmp_path, kinds=[kind_of(handler)]) as runtime:
        for name in ("suspect 1", "suspect 2", "suspect 3"):
            await enqueue(runtime, payload={"name": name})
        runtime.change("UPDATE jobs SET crashes = 2")
        await enqueue(runtime, payload={"name": "other"})
        async with running(runtime):
            await trio.sleep(30)
        assert {name for names in together for name in names} == {"suspect 1", "suspect 2", "suspect 3", "other"}
        assert all(sum("suspect" in name for name in names) <= 1 for names in together)


async def test_raising_handler_is_tried_again_and_costs_nobody_else(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Its error is kept; the others run."""
    calls = []

    async def handler(job: Job) -> None:
        await trio.lowlevel.checkpoint()
        calls.append(job.payload["name"])
        if job.payload["name"] == "bad" and job.attempt < 3:
            raise ValueError("boom")

    async with open_runtime(tmp_path, kinds=[kind_of(handler)]) as runtime, running(runtime):
        bad = await enqueue(runtime, payload={"name": "bad"})
        await enqueue(runtime, payload={"name": "good"})
        await trio.sleep(60)
        assert calls.count("bad") == 3
        assert calls.count("good") == 1
        assert await status(runtime, bad) is JobStatus.DONE
        assert runtime.rows("SELECT type, message FROM job_errors") == [("ValueError", "boom")] * 2


async def test_handler_can_snooze_and_fail_for_good(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Snoozing counts no attempt; failing is final."""
    calls: list[tuple[float, int]] = []

    async def handler(job: Job) -> None:
        await trio.lowlevel.checkpoint()
        calls.append((trio.current_time(), job.attempt))
        if len(calls) == 1:
            raise SnoozeJobError(30)
        raise FailJobError("no")

    async with open_runtime(tmp_path, kinds=[kind_of(handler)]) as runtime, running(runtime):
        job_id = await enqueue(runtime)
        await trio.sleep(60)
        assert calls == [(0, 1), (30, 1)]
        assert await status(runtime, job_id) is JobStatus.FAILED


async def test_unknown_kind_waits_for_who_knows_it(tmp_path: Path, autojump_clock: MockClock) -> None:
    """In a rolling deploy, the newer version's jobs use up no attempt here; one line says so, however many they are."""
    with capture_logs() as entries:
        async with open_runtime(tmp_path) as runtime, running(runtime):
            ids = [await enqueue(runtime, kind="from_the_future") for _ in range(3)]
            await trio.sleep(605)
            jobs = [await runtime.store.jobs.get(job_id) for job_id in ids]
            assert {(job.status, job.attempt) for job in jobs} == {(JobStatus.QUEUED, 0)}
    [entry] = [entry for entry in entries if "left for another instance" in entry["event"]]
    assert entry["kind"] == "from_the_future"


async def test_timer_of_an_unknown_kind_waits_too(tmp_path: Path, autojump_clock: MockClock) -> None:
    """It does not fire into a mailbox where no flow could make anything of it."""
    async with open_runtime(tmp_path) as runtime, running(runtime):
        await runtime.hear("hello")
        await trio.sleep(1)
        [(person,)] = runtime.rows("SELECT id FROM conversation_participants")
        known = await enqueue(runtime, kind="tick", participant_id=ParticipantId(str(person)))
        unknown = await enqueue(runtime, kind="from_the_future", participant_id=ParticipantId(str(person)))
        await trio.sleep(1)
        assert [await status(runtime, job_id) for job_id in (known, unknown)] == [JobStatus.DONE, JobStatus.QUEUED]


async def test_work_longer_than_its_lease_keeps_it(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The lease is extended while the handler works; nobody runs it a second time."""
    calls = 0

    async def handler(_: Job) -> None:
        nonlocal calls
        calls += 1
        await trio.sleep(300)

    async with open_runtime(tmp_path, kinds=[kind_of(handler)], lease=30) as runtime, running(runtime):
        job_id = await enqueue(runtime)
        await trio.sleep(301)
        assert calls == 1
        assert await status(runtime, job_id) is JobStatus.DONE


async def test_job_that_is_replaced_stops_and_runs_anew(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Its worker finds at the next extension that the lease is lost, and cancels the handler."""
    log = []

    async def handler(job: Job) -> None:
        try:
            await trio.sleep(1000 if job.payload["n"] == 1 else 1)
            log.append(f"{job.payload['n']} done")
        except trio.Cancelled:
            log.append(f"{job.payload['n']} canceled")
            raise

    async with open_runtime(tmp_path, kinds=[kind_of(handler)], lease=30) as runtime, running(runtime):
        await enqueue(runtime, payload={"n": 1}, dedupe_key="k")
        await trio.sleep(5)
        later = runtime.clock.now() + timedelta(seconds=60)
        await enqueue(runtime, payload={"n": 2}, dedupe_key="k", run_at=later, on_conflict=OnConflict.REPLACE)
        await trio.sleep(100)
        assert log == ["1 canceled", "2 done"]


async def test_cancel_reaches_a_running_job(tmp_path: Path, autojump_clock: MockClock) -> None:
    """An operator's cancel stops the handler within a third of the lease, and the job ends as canceled."""
    canceled_at = None

    async def handler(_: Job) -> None:
        nonlocal canceled_at
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            canceled_at = trio.current_time()
            raise

    async with open_runtime(tmp_path, kinds=[kind_of(handler)], lease=30) as runtime, running(runtime):
        job_id = await enqueue(runtime)
        await trio.sleep(1)
        await runtime.store.jobs.cancel(job_id)
        await trio.sleep(20)
        assert canceled_at == 10
        assert await status(runtime, job_id) is JobStatus.CANCELED


async def test_stolen_job_is_dropped_and_the_runner_goes_on(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Someone else has it now: its end is not recorded here, and that concerns that job alone."""

    async def handler(_: Job) -> None:
        await trio.sleep(5)

    async with open_runtime(tmp_path, kinds=[kind_of(handler)], lease=30) as runtime, running(runtime):
        job_id = await enqueue(runtime)
        await trio.sleep(1)
        runtime.rows("SELECT 1")
        thief = Claim(worker=WorkerId("thief"), limit=1, seconds=30)
        await runtime.store.leases.give_back(runtime.worker.id)
        [stolen] = (await runtime.store.jobs.claim(thief)).items
        await trio.sleep(10)
        job = await runtime.store.jobs.get(job_id)
        assert (stolen.job.id, job.status, job.worker) == (job_id, JobStatus.RUNNING, "thief")
        other = await enqueue(runtime)
        await trio.sleep(10)
        assert await status(runtime, other) is JobStatus.DONE


async def test_store_that_is_away_for_a_while_costs_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Claims and ends are repeated until they commit; no job runs twice for it."""
    calls = 0

    async def handler(_: Job) -> None:
        nonlocal calls
        await trio.lowlevel.checkpoint()
        calls += 1

    trouble = Trouble({"jobs.claim": 5, "jobs.finish": 4})
    async with (
        open_runtime(tmp_path, kinds=[kind_of(handler)], wrap=trouble.wrap) as runtime,
        running(runtime),
    ):
        job_id = await enqueue(runtime)
        await trio.sleep(60)
        assert calls == 1
        assert await status(runtime, job_id) is JobStatus.DONE
        assert trouble.left == {"jobs.claim": 0, "jobs.finish": 0}
