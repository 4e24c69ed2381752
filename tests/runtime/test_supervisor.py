"""The supervisor: parts start in order, drain together, and none dies alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from promptpipe.runtime.supervisor import PartEndedError, Supervisor
from tests.support.echo import EchoFlow
from tests.support.runtime import open_runtime, run_supervised
from tests.support.unreliable import Trouble

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from promptpipe.flows.flow import FlowContext
    from promptpipe.model.decisions import Decision, FlowState
    from promptpipe.model.events import Event

PORT_CALLS = ("jobs.claim", "mailboxes.claim", "outbox.claim", "outbox.mark_sending", "outbox.record")


class FakePart:
    """Ends *takes* seconds after it is asked to."""

    def __init__(self, name: str, log: list[str], takes: float = 0.0) -> None:
        self.name = name
        self._log = log
        self._takes = takes
        self._stop = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        self._log.append(f"{self.name} started")
        task_status.started()
        try:
            await self._stop.wait()
            await trio.sleep(self._takes)
            self._log.append(f"{self.name} ended")
        except trio.Cancelled:
            self._log.append(f"{self.name} canceled")
            raise

    def stop(self) -> None:
        self._log.append(f"{self.name} stopping")
        self._stop.set()


async def test_parts_start_in_order_and_drain_together(autojump_clock: MockClock) -> None:
    """Each runs before the next starts; all are asked to stop before any is waited for."""
    log: list[str] = []
    supervisor = Supervisor(grace=10)

    async def after() -> None:
        log.append("after")
        supervisor.stop()
        await trio.lowlevel.checkpoint()

    parts = [FakePart("a", log, takes=2), FakePart("b", log, takes=1)]
    await supervisor.run(parts, after=[after], draining=lambda: log.append("draining"))
    assert log == [
        "a started",
        "b started",
        "after",
        "draining",
        "a stopping",
        "b stopping",
        "b ended",
        "a ended",
    ]
    assert trio.current_time() == 2


async def test_what_outlasts_the_grace_is_canceled(autojump_clock: MockClock) -> None:
    """The rest is not held up by it, nor it by the rest."""
    log: list[str] = []
    supervisor = Supervisor(grace=10)
    supervisor.stop()
    await supervisor.run([FakePart("slow", log, takes=100), FakePart("fast", log, takes=1)], draining=lambda: None)
    assert log[-2:] == ["fast ended", "slow canceled"]
    assert trio.current_time() == 10


async def test_background_tasks_outlive_the_parts(autojump_clock: MockClock) -> None:
    """Leases are kept until the last piece of work has ended."""
    log: list[str] = []
    supervisor = Supervisor(grace=10)

    async def keep(*, task_status: trio.TaskStatus[None]) -> None:
        log.append("keeper started")
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            log.append("keeper ended")

    supervisor.stop()
    await supervisor.run([FakePart("a", log, takes=1)], before=[keep], draining=lambda: None)
    assert (log[0], log[-2:]) == ("keeper started", ["a ended", "keeper ended"])


async def test_part_that_ends_by_itself_is_a_defect(autojump_clock: MockClock) -> None:
    """A service that silently stopped sending is worse than one that restarts."""
    log: list[str] = []
    quitter = FakePart("quitter", log)
    quitter.stop()
    with pytest.RaisesGroup(pytest.RaisesExc(PartEndedError, match="quitter"), flatten_subgroups=True):
        await Supervisor(grace=10).run([FakePart("other", log), quitter], draining=lambda: None)
    assert log[-1] == "other canceled"


@pytest.mark.parametrize("call", PORT_CALLS)
async def test_unexpected_exception_in_any_part_ends_all(tmp_path: Path, autojump_clock: MockClock, call: str) -> None:
    """Wherever it is thrown, it comes out, and nothing goes on without it."""
    trouble = Trouble({call: 1}, RuntimeError(f"defect in {call}"))
    async with open_runtime(tmp_path, wrap=trouble.wrap) as runtime:

        async def talk() -> None:
            await trio.sleep(1)
            await runtime.hear("hello")
            await trio.sleep(1)
            await runtime.enqueue("hello")

        with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="defect in"), flatten_subgroups=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk)
                nursery.start_soon(run_supervised, runtime)
        await runtime.store.leases.give_back(runtime.worker.id)
        assert runtime.rows("SELECT count(*) FROM lanes WHERE leased") == [(0,)]


async def test_drain_lets_work_finish_and_hands_out_no_more(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The event at hand is handled; the next of the same mailbox waits for the next start."""

    class Slow(EchoFlow):
        async def handle(self, event: Event, state: FlowState, context: FlowContext) -> Decision:
            await trio.sleep(2)
            return await super().handle(event, state, context)

    async with open_runtime(tmp_path, flows=[Slow()]) as runtime:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_supervised, runtime)
            await trio.testing.wait_all_tasks_blocked()
            await runtime.hear("one", "two")
            await trio.sleep(1)
            runtime.supervisor.stop()
        assert trio.current_time() == pytest.approx(2.0, abs=0.01)
        assert runtime.rows("SELECT json_extract(payload, '$.text'), attempt FROM mailbox_events") == [("two", 0)]
        assert runtime.rows("SELECT count(*) FROM lanes WHERE leased") == [(0,)]


async def test_work_that_outlasts_the_grace_is_given_back_uncounted(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A drain costs no attempt, however hard it was."""

    class Endless(EchoFlow):
        async def handle(self, event: Event, state: FlowState, context: FlowContext) -> Decision:
            await trio.sleep_forever()
            return await super().handle(event, state, context)

    async with open_runtime(tmp_path, flows=[Endless()], grace=3.0) as runtime:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_supervised, runtime)
            await trio.testing.wait_all_tasks_blocked()
            await runtime.hear("one")
            await trio.sleep(1)
            runtime.supervisor.stop()
        assert await runtime.store.leases.give_back(runtime.worker.id) == 1
        assert runtime.rows("SELECT attempt FROM mailbox_events") == [(0,)]
