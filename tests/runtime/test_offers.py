"""Runners that take what commits of their process make due."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from promptpipe.model.leases import Work
from promptpipe.runtime.claim_loop import OFFERED
from tests.support.echo import EchoFlow
from tests.support.people import BOB
from tests.support.runtime import FakeChannel, open_runtime, run_supervised, running
from tests.support.unreliable import Trouble

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from promptpipe.model.messages import Departure, SendOrder, SendResult
    from promptpipe.ports.runners import Offer
    from tests.support.runtime import Runtime


def offered(runtime: Runtime) -> Offer:
    """Have the mailbox runner keep room for a commit."""
    offer = runtime.wakeups.offer(Work.MAILBOX)
    assert offer is not None
    return offer


async def test_reply_of_an_idle_service_takes_three_commits(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The webhook's, the decision's and the result's; nothing is claimed but what is due anyway, once a second."""
    trouble = Trouble()
    async with open_runtime(tmp_path, wrap=trouble.wrap) as runtime, running(runtime):
        await trio.sleep(0.5)
        trouble.calls.clear()
        await runtime.hear("hello")
        await trio.sleep(0.1)
        assert runtime.channel.texts == ["echo: hello"]
        assert trouble.calls == ["inbound.ingest", "mailboxes.decide", "outbox.record"]


async def test_room_that_is_promised_is_for_nobody_else(tmp_path: Path, autojump_clock: MockClock) -> None:
    """It is used again when the commit has not needed it."""
    async with open_runtime(tmp_path, slots=3) as runtime, running(runtime):
        await trio.sleep(0.5)
        offer = offered(runtime)
        assert offer.claim.limit == 3
        assert runtime.wakeups.offer(Work.MAILBOX) is None
        await runtime.hear("hello")
        await trio.sleep(5)
        assert runtime.channel.texts == []
        offer.take([])
        await trio.sleep(0.1)
        assert runtime.channel.texts == ["echo: hello"]


async def test_one_commit_does_not_get_all_the_room(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Others may come at the same time."""
    async with open_runtime(tmp_path, slots=OFFERED + 1) as runtime, running(runtime):
        await trio.sleep(0.5)
        offers = [offered(runtime), offered(runtime)]
        assert [offer.claim.limit for offer in offers] == [OFFERED, 1]
        for offer in offers:
            offer.take([])


async def test_while_others_wait_nobody_is_brought_along(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Whoever has waited longest is next; and before it has looked, a runner does not know who that is."""
    flow = EchoFlow(seconds=10)
    async with open_runtime(tmp_path, flows=[flow], slots=1) as runtime:
        assert runtime.wakeups.offer(Work.MAILBOX) is None
        async with running(runtime):
            await runtime.hear("first")
            await trio.sleep(1)
            await runtime.hear("second", sender=BOB)
            await trio.sleep(1)
            assert runtime.wakeups.offer(Work.MAILBOX) is None
            await trio.sleep(20)
            assert runtime.channel.texts == ["echo: first", "echo: second"]


async def test_runner_that_stops_waits_for_what_it_was_promised(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A commit on its way brings work along, which is done; no other is promised any."""
    async with open_runtime(tmp_path) as runtime:
        ended = trio.Event()

        async def run() -> None:
            await run_supervised(runtime)
            ended.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.sleep(0.5)
            offer = offered(runtime)
            runtime.supervisor.stop()
            await trio.sleep(1)
            assert runtime.wakeups.offer(Work.MAILBOX) is None
            assert not ended.is_set()
            await runtime.hear("hello")
            claimed = await runtime.store.mailboxes.claim(offer.claim)
            offer.take(claimed.items)
            await trio.sleep(1)
            assert ended.is_set()
        assert runtime.rows("SELECT count(*) FROM mailbox_events") == [(0,)]
        assert runtime.rows("SELECT count(*) FROM lanes WHERE leased") == [(0,)]


async def test_reply_that_is_brought_along_is_sent_in_the_drain(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The sender has room for the last decisions; what it is given leaves, and nothing is in doubt."""

    class Slow(FakeChannel):
        async def send(self, order: SendOrder, departure: Departure) -> SendResult:
            await trio.sleep(1)
            return await super().send(order, departure)

    async with open_runtime(tmp_path, flows=[EchoFlow(seconds=2)], channel=Slow()) as runtime:
        async with running(runtime):
            await runtime.hear("hello")
            await trio.sleep(1)
        # Decided after the drain began: the sender takes no more, so the reply waits for the next start.
        assert runtime.rows("SELECT status FROM outbox_messages") == [("queued",)]
        assert runtime.channel.texts == []
