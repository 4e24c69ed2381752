"""Readiness: true only while webhooks can be taken, and what its return sets going."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from promptpipe.model.messages import InDoubtRules, SendResult, Verdict
from tests.support.runtime import FakeChannel, open_runtime, running
from tests.support.unreliable import Trouble

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock


async def test_ready_once_the_store_commits_and_never_again_when_draining(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Not before, not after."""
    trouble = Trouble({"probe": 3})
    async with open_runtime(tmp_path, wrap=trouble.wrap) as runtime:
        assert runtime.readiness.obstacle == "starting"
        async with running(runtime):
            assert not runtime.readiness.ready
            await trio.sleep(5)
            assert runtime.readiness.ready
        assert runtime.readiness.obstacle == "draining"
        runtime.readiness.store_failed()
        assert runtime.readiness.obstacle == "draining"


async def test_store_that_comes_back_during_the_drain_makes_nobody_ready(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Who is leaving takes no more webhooks."""
    async with open_runtime(tmp_path) as runtime, running(runtime):
        runtime.readiness.drain()
        runtime.readiness.store_failed()
        await trio.sleep(5)
        assert runtime.readiness.obstacle == "draining"


async def test_failing_store_is_an_obstacle_until_it_commits_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    """One failure is enough to say so, and one commit to take it back."""
    trouble = Trouble()
    async with open_runtime(tmp_path, wrap=trouble.wrap) as runtime, running(runtime):
        await trio.sleep(1)
        trouble.left = {"mailboxes.claim": 1, "probe": 2}
        await trio.sleep(1.5)
        assert runtime.readiness.obstacle == "the database is not available"
        await trio.sleep(5)
        assert runtime.readiness.ready


async def test_doubts_wait_from_the_last_return_to_readiness(tmp_path: Path, autojump_clock: MockClock) -> None:
    """While no status could arrive, the wait does not run down."""
    trouble = Trouble()
    doubtful = SendResult(verdict=Verdict.DOUBTFUL, error="x")
    channel = FakeChannel(answers=[doubtful])
    async with (
        open_runtime(tmp_path, channel=channel, wrap=trouble.wrap, in_doubt=InDoubtRules(wait=120)) as runtime,
        running(runtime),
    ):
        await runtime.hear("one")
        await trio.sleep(100)
        trouble.left = {"jobs.claim": 1, "probe": 4}
        await trio.sleep(60)
        assert channel.sent == []
        await trio.sleep(120)
        [(sent_at, _)] = channel.sent
        assert 220 < sent_at < 230
