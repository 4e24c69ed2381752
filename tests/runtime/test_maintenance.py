"""Maintenance: every minute, whatever the store says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from promptpipe.model.ids import JobId
from promptpipe.model.jobs import JobStatus, NewJob
from promptpipe.runtime.maintenance import Maintenance
from tests.support.runtime import kind_of, open_runtime, running
from tests.support.unreliable import Trouble

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from promptpipe.model.jobs import Job
    from tests.support.runtime import Runtime


def history(runtime: Runtime) -> int:
    [(count,)] = runtime.rows("SELECT count(*) FROM job_history")
    return int(str(count))


async def nothing(_: Job) -> None:
    await trio.lowlevel.checkpoint()


async def test_history_goes_after_its_time_within_a_minute(tmp_path: Path, autojump_clock: MockClock) -> None:
    """All of it, though it is many batches; what is to be kept for ever is."""
    trouble = Trouble({"maintenance.prune_history": 3})
    kept = {JobStatus.DONE: 100.0, JobStatus.CANCELED: 0.0}
    async with open_runtime(tmp_path, kinds=[kind_of(nothing)], wrap=trouble.wrap) as runtime:
        runtime.parts.append(Maintenance(runtime.store.maintenance, runtime.worker.persistence, kept))
        new = [NewJob(id=JobId(runtime.new_id()), kind="work", run_at=runtime.clock.now()) for _ in range(1201)]
        await runtime.store.jobs.enqueue_many(new)
        await runtime.store.jobs.cancel(new[0].id)
        async with running(runtime):
            await trio.sleep(100)
            assert history(runtime) == 1201
            await trio.sleep(121)
            assert history(runtime) == 1
            await trio.sleep(3600)
            assert history(runtime) == 1
    assert trouble.left == {"maintenance.prune_history": 0}


async def test_marks_go_after_thirty_days(tmp_path: Path, autojump_clock: MockClock) -> None:
    """For so long, what a webhook brings twice has one effect."""
    async with open_runtime(tmp_path) as runtime:
        runtime.parts.append(Maintenance(runtime.store.maintenance, runtime.worker.persistence, {}))
        await runtime.hear("hello")
        runtime.change("UPDATE inbound_dedup SET seen_at = seen_at - ?", (30 * 86400 - 90) * 1_000_000)
        async with running(runtime):
            await trio.sleep(89)
            assert runtime.rows("SELECT count(*) FROM inbound_dedup") == [(1,)]
            await trio.sleep(61)
            assert runtime.rows("SELECT count(*) FROM inbound_dedup") == [(0,)]


async def test_pruning_stops_between_two_batches(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A drain does not wait for a million rows."""
    calls = 0

    class Endless:
        async def prune_history(self, *_: object) -> object:
            nonlocal calls
            calls += 1
            await trio.sleep(1)
            return EVER

        async def prune_job_keys(self, _: object) -> None:
            raise AssertionError("stopped before")

        prune_inbound_marks = prune_job_keys

    async with open_runtime(tmp_path) as runtime:
        part = Maintenance(Endless(), runtime.worker.persistence, {JobStatus.DONE: 1.0})  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:
            await nursery.start(part.run)
            await trio.sleep(10)
            part.stop()
        assert (calls, trio.current_time() < 12) == (10, True)


EVER = object()
