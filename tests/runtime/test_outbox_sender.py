"""The outbox sender: doubts, refusals, cancellation in the middle of a send."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from promptpipe.model.ids import MessageId
from promptpipe.model.messages import InDoubtRules, MessageStatus, NewMessage, SendResult, Text, Verdict
from promptpipe.model.participants import Profile
from tests.support.people import ADA, BOB, ENROLLMENT, batch, phone, receipt
from tests.support.runtime import FakeChannel, open_runtime, run_supervised, running
from tests.support.unreliable import Trouble

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from promptpipe.model.messages import Departure, SendOrder

DOUBTFUL = SendResult(verdict=Verdict.DOUBTFUL, error="ReadTimeout")


async def test_doubt_waits_for_its_status_then_the_policy_decides(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Without a status, it is sent again after the wait, and what is behind it follows."""
    channel = FakeChannel(answers=[DOUBTFUL])
    async with open_runtime(tmp_path, channel=channel, in_doubt=InDoubtRules(wait=120)) as runtime, running(runtime):
        await runtime.hear("one", "two")
        await trio.sleep(119)
        assert channel.sent == []
        await trio.sleep(2)
        assert channel.sent == [(120, "echo: one"), (120, "echo: two")]


async def test_status_within_the_wait_settles_the_doubt_and_wakes_the_lane(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The message is not sent again, and the next leaves at once."""
    channel = FakeChannel(answers=[DOUBTFUL])
    async with open_runtime(tmp_path, channel=channel) as runtime, running(runtime):
        await runtime.hear("one", "two")
        await trio.sleep(50)
        [(reference,)] = runtime.rows("SELECT message_id FROM outbox_attempts")
        status = receipt(MessageStatus.DELIVERED, reference=(str(reference), 1))
        await runtime.store.inbound.ingest(batch(status), None)
        await trio.sleep(200)
        assert channel.sent == [(50, "echo: two")]
        assert await runtime.status("echo: one") is MessageStatus.DELIVERED


async def test_recipient_that_is_too_fast_is_paced(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Four seconds after the first refusal, sixteen after the second."""
    slow = SendResult(verdict=Verdict.SLOW_RECIPIENT, error="131056")
    channel = FakeChannel(answers=[slow, slow])
    async with open_runtime(tmp_path, channel=channel) as runtime, running(runtime):
        await runtime.hear("one")
        await trio.sleep(60)
        assert channel.sent == [(20, "echo: one")]


async def test_message_that_never_left_is_tried_again_soon_and_for_ever(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """An hour without a network fails no message."""
    channel = FakeChannel(answers=[SendResult(verdict=Verdict.UNSENT, error="ConnectError")] * 100)
    async with open_runtime(tmp_path, channel=channel) as runtime, running(runtime):
        await runtime.hear("one")
        await trio.sleep(3600)
        assert channel.texts == ["echo: one"]


async def test_channel_with_a_defect_makes_doubts_not_resends(tmp_path: Path, autojump_clock: MockClock) -> None:
    """An exception from a channel is contained, and taken for an unknown outcome."""

    async def explode(order: SendOrder, departure: Departure) -> SendResult:
        raise RuntimeError("bug")

    channel = FakeChannel(answers=[explode])
    async with open_runtime(tmp_path, channel=channel) as runtime, running(runtime):
        await runtime.hear("one")
        await trio.sleep(10)
        assert await runtime.status("echo: one") is MessageStatus.IN_DOUBT


async def test_unknown_channel_holds_its_messages(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A channel that was taken out of the settings: its messages wait for it to come back."""
    async with open_runtime(tmp_path, channel=FakeChannel(name="pigeon")) as runtime, running(runtime):
        await runtime.hear("one")
        await trio.sleep(10)
        assert await runtime.status("echo: one") is MessageStatus.QUEUED


async def test_too_little_lease_left_sends_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    """After a suspension between mark and request, someone else may hold the lane by the time the request would end."""

    class Suspending(Trouble):
        def arises(self, name: str) -> None:
            super().arises(name)
            if name == "outbox.mark_sending" and self.calls.count(name) == 1:
                runtime.clock.suspended = 25.0

    async with open_runtime(tmp_path, wrap=Suspending().wrap) as runtime, running(runtime):
        await runtime.hear("one")
        await trio.sleep(1)
        await runtime.enqueue("two")
        await trio.sleep(10)
        assert runtime.channel.texts == ["echo: one", "two"]
        attempts = "SELECT state FROM outbox_attempts ORDER BY started_at, n"
        assert runtime.rows(attempts) == [("sent",), ("unsent",), ("sent",)]


async def test_drain_lets_the_send_finish_and_marks_no_more(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What is on its way is recorded; the next to the same person waits for the next start."""

    class Slow(FakeChannel):
        async def send(self, order: SendOrder, departure: Departure) -> SendResult:
            await trio.sleep(2)
            return await super().send(order, departure)

    async with open_runtime(tmp_path, channel=Slow()) as runtime:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_supervised, runtime)
            await trio.testing.wait_all_tasks_blocked()
            await runtime.hear("one", "two")
            await trio.sleep(1)
            runtime.supervisor.stop()
        assert trio.current_time() == pytest.approx(2.0, abs=0.01)
        assert await runtime.status("echo: one") is MessageStatus.SENT
        assert await runtime.status("echo: two") is MessageStatus.QUEUED


async def test_suspect_that_was_cleared_keeps_no_other_waiting(tmp_path: Path, autojump_clock: MockClock) -> None:
    """One at a time is sent to, but no longer than until it is known to be harmless."""

    class Slow(FakeChannel):
        async def send(self, order: SendOrder, departure: Departure) -> SendResult:
            await trio.sleep(5 if order.message.content == Text("think") else 0)
            return await super().send(order, departure)

    async with open_runtime(tmp_path, channel=Slow()) as runtime:
        ada, bob = [
            (await runtime.store.participants.enroll(phone(number), Profile(), ENROLLMENT)).id for number in (ADA, BOB)
        ]
        for person, text in ((ada, "one"), (ada, "think"), (bob, "hello")):
            new = NewMessage(
                id=MessageId(runtime.new_id()), participant_id=person, channel="whatsapp", content=Text(text)
            )
            await runtime.store.outbox.enqueue(new)
        runtime.change("UPDATE lanes SET crashes = 2 WHERE kind = 'outbox'")
        async with running(runtime):
            await trio.sleep(3)
            assert runtime.channel.texts == ["one", "hello", "enrolled"]


@pytest.mark.parametrize(
    ("departs", "expected"), [(False, MessageStatus.QUEUED), (True, MessageStatus.IN_DOUBT)], ids=["before", "after"]
)
async def test_send_canceled_after_the_grace(
    tmp_path: Path, autojump_clock: MockClock, departs: bool, expected: MessageStatus
) -> None:
    """Before its first byte left, the message is queued as before; after it, it is in doubt. Nothing stays leased."""

    async def hang(order: SendOrder, departure: Departure) -> SendResult:
        if departs:
            departure.note()
        await trio.sleep_forever()
        raise AssertionError

    async with open_runtime(tmp_path, channel=FakeChannel(answers=[hang]), grace=3.0) as runtime:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_supervised, runtime)
            await trio.testing.wait_all_tasks_blocked()
            await runtime.hear("one")
            await trio.sleep(1)
            runtime.supervisor.stop()
        assert trio.current_time() == pytest.approx(4.0, abs=0.01)
        await runtime.store.leases.give_back(runtime.worker.id)
        assert await runtime.status("echo: one") is expected
        assert runtime.rows("SELECT count(*) FROM lanes WHERE leased") == [(0,)]


async def test_result_known_when_canceled_is_recorded(tmp_path: Path, autojump_clock: MockClock) -> None:
    """An acceptance that came in the last moment does not become a doubt."""

    async def answer_late(order: SendOrder, departure: Departure) -> SendResult:
        departure.note()
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        return SendResult(verdict=Verdict.ACCEPTED, provider_id="wamid.late")

    async with open_runtime(tmp_path, channel=FakeChannel(answers=[answer_late]), grace=3.0) as runtime:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_supervised, runtime)
            await trio.testing.wait_all_tasks_blocked()
            await runtime.hear("one")
            await trio.sleep(1)
            runtime.supervisor.stop()
        assert await runtime.status("echo: one") is MessageStatus.SENT


async def test_store_that_is_away_for_a_while_resends_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    """An answer that cannot be recorded yet is kept until it can."""
    trouble = Trouble({"outbox.claim": 2, "outbox.mark_sending": 3, "outbox.record": 5})
    channel = FakeChannel()
    async with open_runtime(tmp_path, channel=channel, wrap=trouble.wrap) as runtime, running(runtime):
        await runtime.hear("one")
        await trio.sleep(60)
        assert channel.texts == ["echo: one"]
        assert await runtime.status("echo: one") is MessageStatus.SENT
