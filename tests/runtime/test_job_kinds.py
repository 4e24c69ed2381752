"""What a kind of job may say of its jobs: payload, time, retries, effects."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import trio

from promptpipe.model.errors import CancelJobError, PayloadError, RetryJobError
from promptpipe.model.ids import JobId, MessageId, ParticipantId
from promptpipe.model.jobs import Effects, JobStatus, NewJob
from promptpipe.model.messages import NewMessage, Text
from promptpipe.model.retry import Backoff
from promptpipe.ports.jobs import JobKind
from tests.support.runtime import kind_of, open_runtime, running

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from promptpipe.model.jobs import Job
    from tests.support.runtime import Runtime


@dataclass(frozen=True)
class Greeting:
    """A payload."""

    name: str
    times: int = 1


async def enqueue(runtime: Runtime, kind: str = "work", **payload: object) -> JobId:
    new = NewJob(id=JobId(runtime.new_id()), kind=kind, run_at=runtime.clock.now(), payload=payload)
    return (await runtime.store.jobs.enqueue(new))[0].id


async def get(runtime: Runtime, job_id: JobId) -> Job:
    return await runtime.store.jobs.get(job_id)


async def test_payload_comes_as_what_its_kind_says(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A type of the handler's own, with its defaults."""
    seen = []

    async def greet(_: Job, payload: Greeting) -> None:
        await trio.lowlevel.checkpoint()
        seen.append(payload)

    kind = JobKind(name="greet", run=greet, payload=Greeting)
    async with open_runtime(tmp_path, kinds=[kind]) as runtime, running(runtime):
        await enqueue(runtime, "greet", name="Ada", times=3)
        await enqueue(runtime, "greet", name="Bob")
        await trio.sleep(1)
    assert seen == [Greeting("Ada", 3), Greeting("Bob", 1)]


async def test_payload_that_does_not_fit_fails_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Trying again would change nothing. The reason names the field, and not what was in it."""

    async def greet(_: Job, payload: Greeting) -> None:
        raise AssertionError(payload)

    kind = JobKind(name="greet", run=greet, payload=Greeting)
    async with open_runtime(tmp_path, kinds=[kind]) as runtime, running(runtime):
        job_id = await enqueue(runtime, "greet", name="Ada", times="a secret")
        await trio.sleep(60)
        job = await get(runtime, job_id)
    assert (job.status, job.attempt) == (JobStatus.FAILED, 1)
    assert job.last_error == (
        "PayloadError: times: Input should be a valid integer, unable to parse string as an integer"
    )


def test_payload_of_any_shape_is_taken_as_it_is() -> None:
    """A kind that says nothing gets the JSON."""
    assert kind_of(lambda job: get(None, job.id)).decoded({"a": [1]}) == {"a": [1]}  # type: ignore[arg-type, return-value]


def test_reasons_of_a_payload_are_few() -> None:
    """Whoever sends a thousand wrong fields reads of five."""

    async def run(_: Job, payload: dict[str, int]) -> None:
        del payload

    kind: JobKind[Any] = JobKind(name="numbers", run=run, payload=dict[str, int])
    with pytest.raises(PayloadError) as caught:
        kind.decoded({f"n{number}": "x" for number in range(1000)})
    assert str(caught.value).count("valid integer") == 5


async def test_handler_says_when_to_try_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    """After so long, or at a time: its word comes before the backoff of its kind, and the attempt counts."""
    times: list[float] = []

    async def handler(_: Job) -> None:
        await trio.lowlevel.checkpoint()
        times.append(trio.current_time())
        if len(times) == 1:
            raise RetryJobError("not yet", after=7.5)
        if len(times) == 2:
            raise RetryJobError("at ten", at=runtime.clock.now() + timedelta(seconds=2.5))
        if len(times) == 3:
            raise RetryJobError("at a time that is over", at=runtime.clock.now() - timedelta(days=1))

    async with open_runtime(tmp_path, kinds=[kind_of(handler)]) as runtime, running(runtime):
        job_id = await enqueue(runtime)
        await trio.sleep(60)
        job = await get(runtime, job_id)
        assert times == [0.0, 7.5, 10.0, 10.0]
        assert (job.status, job.attempt) == (JobStatus.DONE, 4)
        assert runtime.rows("SELECT message FROM job_errors ORDER BY attempt LIMIT 2") == [("not yet",), ("at ten",)]


@pytest.mark.parametrize("both", [{}, {"after": 1.0, "at": timedelta(0)}])
def test_retry_is_said_in_one_way(both: dict[str, Any]) -> None:
    """Neither both nor none."""
    with pytest.raises(TypeError):
        RetryJobError("why", **both)


async def test_kind_has_a_backoff_of_its_own(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Exponential with full jitter, from its base to its cap."""
    times: list[float] = []

    async def handler(_: Job) -> None:
        await trio.lowlevel.checkpoint()
        times.append(trio.current_time())
        raise ValueError("boom")

    backoff = Backoff(base=100.0, cap=300.0)
    async with open_runtime(tmp_path, kinds=[kind_of(handler, backoff=backoff)]) as runtime, running(runtime):
        await enqueue(runtime)
        await trio.sleep(5000)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert len(pauses) > 10
    assert pauses[0] <= 100.0
    assert pauses[1] <= 200.0
    assert 200.0 < max(pauses) <= 300.0


async def test_handler_cancels_its_job(tmp_path: Path, autojump_clock: MockClock) -> None:
    """It is not wanted any more: no failure, no other attempt."""

    async def handler(_: Job) -> None:
        await trio.lowlevel.checkpoint()
        raise CancelJobError("overtaken")

    async with open_runtime(tmp_path, kinds=[kind_of(handler)]) as runtime, running(runtime):
        job_id = await enqueue(runtime)
        await trio.sleep(60)
        job = await get(runtime, job_id)
    assert (job.status, job.attempt, job.last_error) == (JobStatus.CANCELED, 1, None)


async def test_job_that_takes_too_long_is_stopped_and_tried_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The time of its kind, exceeded by a second at most; those beside it and after it go on."""
    ended: list[tuple[str, float]] = []

    async def handler(job: Job) -> None:
        name = str(job.payload["name"])
        try:
            await trio.sleep(5.0 if name == "slow" and job.attempt == 1 else 1.5)
        finally:
            ended.append((name, trio.current_time()))

    kind = kind_of(handler, time_limit=2.0, backoff=Backoff(base=0.0, cap=0.0))
    async with open_runtime(tmp_path, kinds=[kind]) as runtime, running(runtime):
        slow = await enqueue(runtime, name="slow")
        quick = await enqueue(runtime, name="quick")
        await trio.sleep(60)
        jobs = [await get(runtime, job_id) for job_id in (slow, quick)]
        assert [(job.status, job.attempt) for job in jobs] == [(JobStatus.DONE, 2), (JobStatus.DONE, 1)]
        assert runtime.rows("SELECT type, message FROM job_errors") == [("TimeLimit", "took longer than 2 s")]
    assert ended[0] == ("quick", 1.5)
    assert ended[1][0] == "slow"
    assert 2.0 <= ended[1][1] <= 3.1


async def test_effects_take_place_with_the_end(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A message goes out and a job follows, though the handler itself wrote nothing."""
    followed = []

    async def handler(job: Job, payload: object) -> Effects | None:
        del payload
        await trio.lowlevel.checkpoint()
        if job.payload.get("follows"):
            followed.append(job.id)
            return None
        [(person,)] = runtime.rows("SELECT id FROM conversation_participants")
        message = NewMessage(
            id=MessageId(runtime.new_id()),
            participant_id=ParticipantId(str(person)),
            channel="whatsapp",
            content=Text("from a job"),
        )
        after = NewJob(id=JobId(runtime.new_id()), kind="work", run_at=runtime.clock.now(), payload={"follows": True})
        return Effects(jobs=[after], messages=[message])

    kind: JobKind[Any] = JobKind(name="work", run=handler)
    async with open_runtime(tmp_path, kinds=[kind]) as runtime, running(runtime):
        await runtime.hear("hi")
        await trio.sleep(1)
        runtime.channel.sent.clear()
        job_id = await enqueue(runtime)
        await trio.sleep(5)
        assert (await get(runtime, job_id)).status is JobStatus.DONE
        assert runtime.channel.texts == ["from a job"]
        assert len(followed) == 1


async def test_impossible_effects_fail_their_job_alone(tmp_path: Path, autojump_clock: MockClock) -> None:
    """None of them takes place, and what ended in the same commit has ended."""

    async def handler(job: Job, payload: object) -> Effects | None:
        del payload
        await trio.lowlevel.checkpoint()
        if job.payload["name"] == "good":
            return None
        after = NewJob(id=JobId(runtime.new_id()), kind="work", run_at=runtime.clock.now())
        message = NewMessage(
            id=MessageId(runtime.new_id()),
            participant_id=ParticipantId("nobody"),
            channel="whatsapp",
            content=Text("hi"),
        )
        return Effects(jobs=[after], messages=[message])

    kind: JobKind[Any] = JobKind(name="work", run=handler)
    async with open_runtime(tmp_path, kinds=[kind]) as runtime:
        good, bad, other = [await enqueue(runtime, name=name) for name in ("good", "bad", "good")]
        async with running(runtime):
            await trio.sleep(5)
        ended = [(await get(runtime, job_id)).status for job_id in (good, bad, other)]
        assert ended == [JobStatus.DONE, JobStatus.FAILED, JobStatus.DONE]
        assert "nobody" in str((await get(runtime, bad)).last_error)
        assert runtime.rows("SELECT count(*) FROM jobs") == [(0,)]


async def test_ends_of_one_moment_are_one_commit(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A hundred jobs that end together are not a hundred transactions."""

    async def handler(_: Job) -> None:
        await trio.sleep(1)

    async with open_runtime(tmp_path, kinds=[kind_of(handler)], slots=100) as runtime:
        batches: list[int] = []
        finish = runtime.store.jobs.finish

        async def counted(endings: Any) -> Any:
            batches.append(len(endings))
            return await finish(endings)

        runtime.parts[0]._endings._finish = counted  # type: ignore[attr-defined]
        for _ in range(100):
            await enqueue(runtime)
        async with running(runtime):
            await trio.sleep(10)
        assert sum(batches) == 100
        assert len(batches) <= 2


async def test_work_that_was_done_is_recorded_though_all_is_canceled(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What is known at the end of the grace is not done again by the next process."""
    ended = trio.Event()

    async def handler(job: Job) -> None:
        if job.payload["name"] == "long":
            await trio.sleep_forever()
        ended.set()

    async with open_runtime(tmp_path, kinds=[kind_of(handler)], grace=1.0) as runtime:
        finish = runtime.store.jobs.finish

        async def slow(endings: Any) -> Any:
            if not scope.cancel_called:
                await trio.sleep_forever()
            return await finish(endings)

        runner = runtime.parts[0]
        runner._endings._finish = slow  # type: ignore[attr-defined]
        done, stopped = await enqueue(runtime, name="short"), await enqueue(runtime, name="long")
        async with trio.open_nursery() as nursery:
            scope = nursery.cancel_scope
            await nursery.start(runner.run)
            await ended.wait()
            await trio.sleep(0.1)
            scope.cancel()
        assert (await get(runtime, done)).status is JobStatus.DONE
        assert (await get(runtime, stopped)).status is JobStatus.RUNNING
