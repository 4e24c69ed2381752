"""The mailbox runner: failing events, lost leases, conflicts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import trio

from promptpipe.model.decisions import Hook
from promptpipe.model.errors import VersionConflictError
from promptpipe.model.events import Replied
from promptpipe.model.ids import ParticipantId, WorkerId
from promptpipe.model.leases import Claim
from promptpipe.model.messages import MessageStatus
from promptpipe.runtime.mailbox_runner import EVENTS_AT_ONCE
from tests.support.echo import EchoFlow
from tests.support.people import BOB
from tests.support.runtime import open_runtime, running
from tests.support.unreliable import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio.testing import MockClock

    from promptpipe.flows.flow import FlowContext
    from promptpipe.model.decisions import Decision, FlowState
    from promptpipe.model.events import Event


class Troublesome(EchoFlow):
    """Does something else first when it hears `trouble`."""

    def __init__(self, trouble: Callable[[], object]) -> None:
        self.trouble = trouble
        self.heard: list[tuple[float, str]] = []

    async def handle(self, event: Event, state: FlowState, context: FlowContext) -> Decision:
        assert isinstance(event, Replied)
        self.heard.append((trio.current_time(), event.text))
        if event.text == "trouble":
            self.trouble()
        return await super().handle(event, state, context)


def fail() -> None:
    raise ValueError("boom")


async def test_failing_event_is_tried_again_then_set_aside(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The conversation goes on within two minutes; the event is kept with its reason."""
    flow = Troublesome(fail)
    async with open_runtime(tmp_path, flows=[flow]) as runtime, running(runtime):
        await runtime.hear("trouble", "after")
        await trio.sleep(10)
        await runtime.hear("hello", sender=BOB)
        await trio.sleep(1)
        assert runtime.channel.texts == ["echo: hello"]
        await trio.sleep(300)
        assert runtime.channel.texts == ["echo: hello", "echo: after"]
        attempts = [at for at, text in flow.heard if text == "trouble"]
        assert len(attempts) > 3
        went_on_at = next(at for at, text in flow.heard if text == "after")
        assert went_on_at - attempts[0] <= 120
        assert runtime.rows("SELECT last_error FROM mailbox_events WHERE seq IS NULL") == [("ValueError: boom",)]


async def test_flow_that_does_not_come_back_holds_nobody_up_for_ever(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Two minutes are all that one event may take of its conversation, in one go or in many."""

    class Stuck(EchoFlow):
        async def handle(self, event: Event, state: FlowState, context: FlowContext) -> Decision:
            assert isinstance(event, Replied)
            if event.text == "trouble":
                await trio.sleep_forever()
            return await super().handle(event, state, context)

    async with open_runtime(tmp_path, flows=[Stuck()]) as runtime, running(runtime):
        await runtime.hear("trouble", "after")
        await trio.sleep(121)
        assert runtime.channel.texts == ["echo: after"]
        assert runtime.rows("SELECT last_error FROM mailbox_events WHERE seq IS NULL") == [("TooSlowError",)]


async def test_suspect_that_was_cleared_keeps_no_other_waiting(tmp_path: Path, autojump_clock: MockClock) -> None:
    """One at a time is handled, but no longer than until it is known to be harmless."""

    class Slow(EchoFlow):
        async def handle(self, event: Event, state: FlowState, context: FlowContext) -> Decision:
            assert isinstance(event, Replied)
            if event.text == "think":
                await trio.sleep(100)
            return await super().handle(event, state, context)

    async with open_runtime(tmp_path, flows=[Slow()]) as runtime:
        await runtime.hear("one", "think")
        await runtime.hear("hello", sender=BOB)
        runtime.change("UPDATE lanes SET crashes = 2 WHERE kind = 'mailbox'")
        async with running(runtime):
            await trio.sleep(3)
            assert runtime.channel.texts == ["echo: one", "echo: hello"]
            assert runtime.rows("SELECT crashes FROM lanes WHERE kind = 'mailbox'") == [(0,), (0,)]


async def test_events_that_wait_behind_each_other_are_one_commit(tmp_path: Path, autojump_clock: MockClock) -> None:
    """As many as belong together, in order, as if each had been one of its own."""
    trouble = Trouble()
    async with open_runtime(tmp_path, wrap=trouble.wrap) as runtime:
        texts = [f"{number}" for number in range(EVENTS_AT_ONCE + 3)]
        await runtime.hear(*texts)
        async with running(runtime):
            await trio.sleep(1)
        assert runtime.channel.texts == [f"echo: {text}" for text in texts]
        assert trouble.calls.count("mailboxes.decide") == 2
        [(data,)] = runtime.rows("SELECT state_data FROM flow_states")
        assert json.loads(str(data))["heard"] == [f"echo: {text}" for text in texts]


async def test_nobody_waits_for_what_is_slow_behind_them(tmp_path: Path, autojump_clock: MockClock) -> None:
    """It is handled again, with all the time that it needs, once it is the first."""

    class Thinking(EchoFlow):
        async def handle(self, event: Event, state: FlowState, context: FlowContext) -> Decision:
            assert isinstance(event, Replied)
            await trio.sleep(60 if event.text == "think" else 0)
            return await super().handle(event, state, context)

    async with open_runtime(tmp_path, flows=[Thinking()]) as runtime:
        await runtime.hear("one", "two", "think", "three")
        async with running(runtime):
            await trio.sleep(0.2)
            assert runtime.channel.texts == ["echo: one", "echo: two"]
            await trio.sleep(61)
            assert runtime.channel.texts == ["echo: one", "echo: two", "echo: think", "echo: three"]


async def test_failure_costs_those_before_it_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    """They are answered at once, whether it fails in its flow or when it is stored; it is set aside by itself."""

    class Unstorable(Troublesome):
        async def handle(self, event: Event, state: FlowState, context: FlowContext) -> Decision:
            decision = await super().handle(event, state, context)
            assert decision.state is not None
            if isinstance(event, Replied) and event.text == "object":
                decision.state.data["heard"] = object()  # type: ignore[index]
            return decision

    for number, bad in enumerate(("trouble", "object")):
        folder = tmp_path / bad
        folder.mkdir()
        async with open_runtime(folder, flows=[Unstorable(fail)]) as runtime:
            await runtime.hear("one", bad, "two")
            async with running(runtime):
                await trio.sleep(0.2)
                assert runtime.channel.texts == ["echo: one"], number
                await trio.sleep(300)
                assert runtime.channel.texts == ["echo: one", "echo: two"]
                assert runtime.rows("SELECT count(*) FROM mailbox_events WHERE seq IS NULL") == [(1,)]


async def test_event_that_fails_once_is_not_lost(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A passing failure delays an answer, no more; order is kept."""
    failures = iter([fail])

    def fail_once() -> None:
        next(failures, lambda: None)()

    async with open_runtime(tmp_path, flows=[Troublesome(fail_once)]) as runtime, running(runtime):
        await runtime.hear("trouble", "after")
        await trio.sleep(60)
        assert runtime.channel.texts == ["echo: trouble", "echo: after"]


async def test_decision_that_cannot_be_stored_is_its_flows_failure(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A state that is not JSON fails that event, not the service."""

    class Unstorable(EchoFlow):
        async def handle(self, event: Event, state: FlowState, context: FlowContext) -> Decision:
            decision = await super().handle(event, state, context)
            assert decision.state is not None
            decision.state.data["heard"] = object()  # type: ignore[index]
            return decision

    async with open_runtime(tmp_path, flows=[Unstorable()]) as runtime, running(runtime):
        await runtime.hear("hello")
        await trio.sleep(300)
        assert runtime.channel.texts == []
        [(error,)] = runtime.rows("SELECT last_error FROM mailbox_events WHERE seq IS NULL")
        assert "not JSON serializable" in str(error)


async def test_event_without_a_handler_waits_for_one(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Recovery may restore the handler meanwhile: the message is answered then."""
    async with open_runtime(tmp_path) as runtime, running(runtime):
        await runtime.hear("first")
        await trio.sleep(1)
        [(person,)] = runtime.rows("SELECT participant_id FROM registered_hooks")
        runtime.change("DELETE FROM registered_hooks")
        await runtime.hear("second")
        await trio.sleep(5)
        assert runtime.channel.texts == ["echo: first"]
        hook = Hook(participant_id=ParticipantId(str(person)), handler_type="echo", flow_type="echo")
        await runtime.store.recovery.register_hook(hook)
        await trio.sleep(60)
        assert runtime.channel.texts == ["echo: first", "echo: second"]


async def test_version_conflict_is_handled_anew_without_counting(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Someone changed the state between: the event is decided again from what is there now."""
    trouble = Trouble({"mailboxes.decide": 2}, VersionConflictError("changed"))
    async with open_runtime(tmp_path, wrap=trouble.wrap) as runtime, running(runtime):
        await runtime.hear("hello")
        await trio.sleep(5)
        assert runtime.channel.texts == ["echo: hello"]
        assert trouble.calls.count("mailboxes.give_back") == 2


async def test_stolen_mailbox_is_left_to_the_thief(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A flow that took too long decides nothing; what it would have said is not said."""

    class Slow(EchoFlow):
        async def handle(self, event: Event, state: FlowState, context: FlowContext) -> Decision:
            await trio.sleep(5)
            return await super().handle(event, state, context)

    async with open_runtime(tmp_path, flows=[Slow()]) as runtime, running(runtime):
        await runtime.hear("hello")
        await trio.sleep(1)
        await runtime.store.leases.give_back(runtime.worker.id)
        [stolen] = (await runtime.store.mailboxes.claim(Claim(worker=WorkerId("thief"), limit=1, seconds=30))).items
        await trio.sleep(10)
        assert runtime.channel.texts == []
        assert stolen.event.attempt == 1


async def test_store_that_is_away_for_a_while_costs_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The decision is made once and committed when it can be."""
    flow = Troublesome(lambda: None)
    trouble = Trouble({"mailboxes.claim": 3, "mailboxes.decide": 5})
    async with open_runtime(tmp_path, flows=[flow], wrap=trouble.wrap) as runtime, running(runtime):
        await runtime.hear("hello")
        await trio.sleep(30)
        assert [text for _, text in flow.heard] == ["hello"]
        assert runtime.channel.texts == ["echo: hello"]
        assert await runtime.status("echo: hello") is MessageStatus.SENT
