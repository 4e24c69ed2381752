"""Maintenance: every minute, whatever the store says."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import trio

from promptpipe.app.components import open_components
from promptpipe.app.parts import make_runners, make_worker
from promptpipe.config import load_settings
from promptpipe.model.ids import JobId
from promptpipe.model.jobs import JobStatus, NewJob
from promptpipe.runtime.maintenance import Maintenance
from promptpipe.services.readiness import Readiness
from tests.support.runtime import kind_of, open_runtime, running
from tests.support.unreliable import Trouble

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    import pytest
    from trio.testing import MockClock

    from promptpipe.model.jobs import Job
    from promptpipe.ports.store import Store as AnyStore
    from tests.support.runtime import Runtime


PORTS = ("jobs", "schedules", "mailboxes", "outbox", "leases")
"""What the runners use of a store, beside maintenance."""


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


async def test_each_ending_is_kept_for_the_time_that_is_set_for_it(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The product puts settings and statuses together."""
    for number, ending in enumerate(("DONE", "FAILED", "CANCELED"), start=1):
        monkeypatch.setenv(f"PROMPTPIPE_RETENTION__{ending}", f"{number * 1000}")
    asked: dict[JobStatus, timedelta] = {}

    class Store:
        async def prune_history(self, status: JobStatus, age: timedelta, _: object) -> None:
            await trio.lowlevel.checkpoint()
            asked[status] = age

        async def prune_job_keys(self, *_: object) -> None:
            await trio.lowlevel.checkpoint()

        prune_inbound_marks = prune_refusals = prune_job_keys

    settings = load_settings(database_url=f"sqlite:///{tmp_path}/test.db")
    async with open_components(settings) as components:
        whole = SimpleNamespace(**{name: getattr(components.store, name) for name in PORTS}, maintenance=Store())
        parts = make_runners(replace(components, store=cast("AnyStore", whole)), make_worker(components, Readiness()))
        [maintenance] = [part for part in parts if isinstance(part, Maintenance)]
        async with trio.open_nursery() as nursery:
            await nursery.start(maintenance.run)
            await trio.sleep(1)
            maintenance.stop()
    thousands = {status: age.total_seconds() / 1000 for status, age in asked.items()}
    assert thousands == {JobStatus.DONE: 1, JobStatus.FAILED: 2, JobStatus.CANCELED: 3}


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

        prune_inbound_marks = prune_refusals = prune_job_keys

    async with open_runtime(tmp_path) as runtime:
        part = Maintenance(Endless(), runtime.worker.persistence, {JobStatus.DONE: 1.0})  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:
            await nursery.start(part.run)
            await trio.sleep(10)
            part.stop()
        assert (calls, trio.current_time() < 12) == (10, True)


EVER = object()
