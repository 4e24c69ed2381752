"""The runners together: what comes in goes through a flow and out, in order and on time."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import trio

from promptpipe.flows.conversation import ConversationFlow, ConversationSettings, script
from promptpipe.model.ids import JobId, ParticipantId
from promptpipe.model.inbound import Enrollment
from promptpipe.model.jobs import NewJob
from tests.support.people import ADA, BOB, batch, inbound
from tests.support.runtime import FakeChannel, open_runtime, running
from tests.support.script import PROFILE

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from promptpipe.model.messages import Departure, SendOrder, SendResult
    from tests.support.runtime import Runtime

MINUTE = 60.0
OFF = timedelta(0)
COACH = ConversationSettings(reminder_delay=timedelta(minutes=10), auto_feedback_delay=OFF, feedback_timeout=OFF)


async def test_reply_leaves_for_what_came_in(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Nothing waits for a poll on the way: on an idle system it takes no time at all."""
    async with open_runtime(tmp_path) as runtime, running(runtime):
        await trio.sleep(100.3)
        await runtime.hear("hello")
        await trio.sleep(0.001)
        assert runtime.channel.sent == [(100.3, "echo: hello")]


async def test_fifty_messages_of_one_person_are_answered_in_order_one_at_a_time(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """However many workers there are, a conversation has one thread, and so has a recipient."""

    class SlowChannel(FakeChannel):
        under_way = 0

        async def send(self, order: SendOrder, departure: Departure) -> SendResult:
            self.under_way += 1
            assert self.under_way == 1
            await trio.sleep(0.1)
            self.under_way -= 1
            return await super().send(order, departure)

    async with open_runtime(tmp_path, channel=SlowChannel()) as runtime, running(runtime):
        async with trio.open_nursery() as nursery:
            for number in range(50):
                await runtime.hear(str(number))
                nursery.start_soon(trio.lowlevel.checkpoint)
        await trio.sleep(60)
        assert runtime.channel.texts == [f"echo: {number}" for number in range(50)]


async def test_people_do_not_wait_for_each_other(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A recipient whose provider is slow holds up nobody else."""

    class SlowForAda(FakeChannel):
        async def send(self, order: SendOrder, departure: Departure) -> SendResult:
            if order.message.recipient.value == ADA:
                await trio.sleep(5.0)
            return await super().send(order, departure)

    async with open_runtime(tmp_path, channel=SlowForAda()) as runtime, running(runtime):
        await runtime.hear("a")
        await runtime.hear("b", sender=BOB)
        await trio.sleep(10)
        assert [text for _, text in runtime.channel.sent] == ["echo: b", "echo: a"]


async def test_paused_participant_is_heard_but_not_talked_to(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What they write is kept as a response; no flow acts upon it."""
    async with open_runtime(tmp_path) as runtime, running(runtime):
        await runtime.hear("hello")
        await trio.sleep(1)
        runtime.change("UPDATE conversation_participants SET status = 'paused'")
        await runtime.hear("anybody there?")
        await trio.sleep(60)
        assert runtime.channel.texts == ["echo: hello"]
        assert runtime.rows("SELECT count(*) FROM mailbox_events") == [(0,)]
        assert runtime.rows("SELECT count(*) FROM responses WHERE processed_at IS NOT NULL") == [(2,)]


async def test_timer_fires_on_time(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Within 50 ms of due, whatever the polling is."""
    async with open_runtime(tmp_path) as runtime, running(runtime):
        await runtime.hear("hello")
        await trio.sleep(1)
        [(person,)] = runtime.rows("SELECT id FROM conversation_participants")
        due = 10 * MINUTE + 0.123
        await runtime.store.jobs.enqueue(
            NewJob(
                id=JobId(runtime.new_id()),
                kind="tick",
                run_at=runtime.clock.now() + timedelta(seconds=due - trio.current_time()),
                participant_id=ParticipantId(str(person)),
            )
        )
        await trio.sleep(due + 10)
        [(at, text)] = runtime.channel.sent[1:]
        assert text == "timer_fired"
        assert due <= at <= due + 0.05


# ---------------------------------------------------------------- the coach


async def hear(runtime: Runtime, text: str) -> None:
    enrollment = Enrollment("conversation", "conversation", "CONVERSATION_ACTIVE")
    await runtime.store.inbound.ingest(batch(inbound(text, provider_time=runtime.clock.now())), enrollment)
    await trio.sleep(1.0)


async def take_in(runtime: Runtime) -> None:
    """Go through the intake, up to the first prompt."""
    for text in ("hi", *(PROFILE[field] for field in script.INTAKE)):
        await hear(runtime, text)
    assert runtime.channel.texts[-1] == script.habit_prompt(PROFILE)


async def test_reminder_comes_when_nobody_answers_and_only_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    """So long after the prompt was sent, to the second, and never again."""
    flow = ConversationFlow(COACH)
    async with open_runtime(tmp_path, flows=[flow]) as runtime, running(runtime):
        await take_in(runtime)
        prompted_at = runtime.channel.sent[-1][0]
        await trio.sleep(30 * MINUTE)
        at, text = runtime.channel.sent[-1]
        assert text == script.reminder(PROFILE)
        assert at - prompted_at == pytest.approx(10 * MINUTE, abs=0.05)
        assert runtime.channel.texts.count(text) == 1


async def test_reply_cancels_the_reminder(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A minute before it was due; whatever the reply says."""
    flow = ConversationFlow(COACH)
    async with open_runtime(tmp_path, flows=[flow]) as runtime, running(runtime):
        await take_in(runtime)
        await trio.sleep(9 * MINUTE)
        await hear(runtime, "not yet")
        await trio.sleep(30 * MINUTE)
        assert runtime.channel.texts[-1] == script.KEEP_GOING
        assert runtime.rows("SELECT status FROM job_history") == [("canceled",)]


async def test_prompt_that_did_not_leave_starts_no_clock(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The reminder's time counts from when the prompt was really sent."""
    flow = ConversationFlow(COACH)
    channel = FakeChannel()
    async with open_runtime(tmp_path, flows=[flow], channel=channel) as runtime, running(runtime):
        for text in ("hi", *(PROFILE[field] for field in list(script.INTAKE)[:-1])):
            await hear(runtime, text)

        async def stuck(order: SendOrder, departure: Departure) -> SendResult:
            await trio.sleep(5 * MINUTE)
            return await FakeChannel.send(channel, order, departure)

        channel.send_timeout = 1.0
        channel.answers = [stuck]
        await hear(runtime, PROFILE["prompt_anchor"])
        assert runtime.rows("SELECT count(*) FROM jobs") == [(0,)]
        await trio.sleep(6 * MINUTE)
        prompted_at = channel.sent[-1][0]
        await trio.sleep(10 * MINUTE)
        assert channel.sent[-1][0] - prompted_at == pytest.approx(10 * MINUTE, abs=0.05)
