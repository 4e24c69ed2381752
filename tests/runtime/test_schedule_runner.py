"""The schedule runner: on time, in batches, and through what may happen to the store."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import trio

from promptpipe.model.ids import ScheduleId
from promptpipe.model.leases import Work
from promptpipe.model.listing import PageRequest
from promptpipe.model.recurrence import Recurrence
from promptpipe.model.schedules import NewSchedule
from promptpipe.runtime.schedule_runner import BATCH
from tests.support.runtime import EPOCH, kind_of, open_runtime, running
from tests.support.unreliable import Trouble

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from promptpipe.model.jobs import Job
    from promptpipe.model.schedules import Schedule
    from tests.support.runtime import Runtime

EVERY_MINUTE = Recurrence(cron="* * * * *")


async def create(runtime: Runtime, recurrence: Recurrence = EVERY_MINUTE) -> Schedule:
    new = NewSchedule(id=ScheduleId(runtime.new_id()), kind="work", recurrence=recurrence)
    return await runtime.store.schedules.create(new)


class Seen:
    """A handler, and when it was called for which time."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, str]] = []

    async def __call__(self, job: Job) -> None:
        await trio.lowlevel.checkpoint()
        self.calls.append((trio.current_time(), str(job.payload["occurrence"])[11:]))


async def test_job_of_a_schedule_runs_when_it_is_due(tmp_path: Path, autojump_clock: MockClock) -> None:
    """At its minute, each time, in no time; one made meanwhile does not wait for a poll."""
    seen = Seen()
    async with open_runtime(tmp_path, kinds=[kind_of(seen)]) as runtime:
        await trio.sleep(0.5)  # so that no poll is at a minute
        async with running(runtime):
            await trio.sleep(59.3)
            await create(runtime)
            await trio.sleep(150)
    assert seen.calls == [(60.0, "12:01Z"), (120.0, "12:02Z"), (180.0, "12:03Z")]


async def test_more_than_a_batch_fires_at_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Batch after batch, without a pause between."""
    seen, trouble = Seen(), Trouble()
    async with open_runtime(tmp_path, kinds=[kind_of(seen)], wrap=trouble.wrap) as runtime:
        for _ in range(2 * BATCH + 1):
            await create(runtime)
        async with running(runtime):
            await trio.sleep(59.9)
            trouble.calls.clear()
            await trio.sleep(0.2)
            assert trouble.calls.count("schedules.fire") == 3
    assert seen.calls == [(60.0, "12:01Z")] * (2 * BATCH + 1)


async def test_runner_goes_on_when_the_store_works_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What came due meanwhile fires then, once."""
    seen, trouble = Seen(), Trouble()
    async with open_runtime(tmp_path, kinds=[kind_of(seen)], wrap=trouble.wrap) as runtime, running(runtime):
        await create(runtime)
        await trio.sleep(59)
        trouble.left["schedules.fire"] = 5
        await trio.sleep(50)
    assert trouble.left["schedules.fire"] == 0
    [(at, occurrence)] = seen.calls
    assert (60.0 <= at < 80.0, occurrence) == (True, "12:01Z")


async def test_store_that_is_gone_is_not_asked_all_the_time(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The pauses grow."""
    trouble = Trouble({"schedules.fire": 1000})
    async with open_runtime(tmp_path, wrap=trouble.wrap) as runtime, running(runtime):
        await trio.sleep(600)
        assert 100 <= trouble.calls.count("schedules.fire") <= 500


async def test_store_that_works_again_is_trusted_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    """After a failure the pause is short, however long they were before the store worked."""
    seen, trouble = Seen(), Trouble({"schedules.fire": 12})
    async with open_runtime(tmp_path, kinds=[kind_of(seen)], wrap=trouble.wrap) as runtime, running(runtime):
        await create(runtime, Recurrence(hour=12, minute=5))
        await trio.sleep(299.5)
        trouble.left["schedules.fire"] = 2
        await trio.sleep(10)
    [(at, _)] = seen.calls
    assert at < 300.5


async def test_stopped_runner_fires_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Its schedules wait for the next start."""
    async with open_runtime(tmp_path) as runtime:
        await create(runtime)
        async with running(runtime):
            await trio.sleep(59.999)
        await trio.sleep(5)
        assert runtime.rows("SELECT count(*) FROM jobs") == [(0,)]
        made = await runtime.store.schedules.list(None, PageRequest(size=9))
        assert [item.next_at for item in made.items] == [EPOCH + timedelta(minutes=1)]
        assert runtime.wakeups.wake(Work.SCHEDULE) is False


async def test_idle_runner_polls_once_a_second(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Whatever wakes it, or fails to."""
    trouble = Trouble()
    async with open_runtime(tmp_path, wrap=trouble.wrap) as runtime, running(runtime):
        await create(runtime, Recurrence(hour=3, minute=0))
        trouble.calls.clear()
        await trio.sleep(10.5)
        assert 10 <= trouble.calls.count("schedules.fire") <= 11
        runtime.change("UPDATE schedules SET next_at = 0")
        await trio.sleep(1.1)
        assert runtime.rows("SELECT count(*) FROM jobs") == [(1,)]
