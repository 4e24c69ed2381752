"""kill -9 at the worst moments: restart, and the conversation ends the same."""

from __future__ import annotations

import random
import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from tests.faults.spawner import start_forked
from tests.faults.support import NOTHING_LEFT, left_over
from tests.support.eventually import eventually
from tests.support.script import TRANSCRIPT, converse
from tests.support.service import open_service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptpipe.simulator.meta_stand_in import MetaStandIn
    from tests.support.service import Home, Service

pytestmark = pytest.mark.slow

SETTINGS = {
    "DAILY_PROMPT_REMINDER_DELAY": "0.5",
    # On PostgreSQL a doubt begins when the dead sender's lease and its last request surely are over.
    "LEASE": "2",
    "WHATSAPP__SEND_TIMEOUT": "0.7",
}

REPLIES = sum(who == "service" for who, _ in TRANSCRIPT)

BEFORE_THE_REQUEST = [
    "store.inbound.ingest:before:1",
    "store.inbound.ingest:after:1",
    "store.inbound.ingest:after:3",
    "store.mailboxes.claim:after:1",
    "store.mailboxes.claim:after:3",
    "flow.handle:before:2",
    "flow.handle:after:2",
    "store.mailboxes.decide:before:1",
    "store.mailboxes.decide:before:4",
    "store.mailboxes.decide:after:1",
    "store.mailboxes.decide:after:5",
    "store.outbox.claim:after:1",
    "store.outbox.mark_sending:before:2",
    "store.outbox.mark_sending:after:1",
    "store.outbox.mark_sending:after:3",
    "store.outbox.record:after:1",
    "store.outbox.record:after:2",
    "channel.send:before:2",
    "channel.send:departing:3",
    "store.jobs.claim:after:1",
    "store.jobs.finish:before:1",
    "store.jobs.finish:after:1",
]
BETWEEN_SEND_AND_RECORD = [
    "channel.send:after:1",
    "channel.send:after:2",
    "channel.send:after:7",
    "store.outbox.record:before:3",
]
IN_RECOVERY = [
    "store.recovery.requeue_stale_running_jobs:before:1",
    "store.recovery.release_stale_mailboxes:before:1",
    "store.recovery.requeue_stale_sending_messages:before:1",
    "store.recovery.requeue_stale_sending_messages:after:1",
    "store.recovery.restart_doubts:after:1",
    "store.probe:after:1",
    "store.recovery.save_report:before:1",
]


async def run_through_deaths(service: Service, points: Sequence[str]) -> None:
    """Start the service to die at each of *points* in turn, and then once more to live."""
    for point in points:
        start_forked(service, "--kill", point)
        code = await service.wait_ended(within=40.0)
        assert code == -signal.SIGKILL, service.log()
    start_forked(service)


async def hold_conversation(service: Service, stand_in: MetaStandIn, points: Sequence[str]) -> None:
    """Have the conversation of the tests with a service that dies at *points*, and check that nobody could tell."""
    phone = stand_in.world.phone("+16505551234", "Ada")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_through_deaths, service, points)
        await converse(stand_in, phone, within=40.0)
    assert phone.transcript() == TRANSCRIPT
    await eventually(lambda: left_over(service) == dict.fromkeys(NOTHING_LEFT, 0))
    assert await service.stop() == 0


@pytest.mark.parametrize("point", BEFORE_THE_REQUEST)
async def test_killed_before_the_request_or_after_its_record(home: Home, point: str) -> None:
    """No message is lost, none is processed twice, none is sent twice."""
    settings = SETTINGS | {"IN_DOUBT_WAIT": "0.5"}
    async with open_service(home, **settings) as (service, stand_in):
        await hold_conversation(service, stand_in, [point])
        assert len(stand_in.world.requests) == REPLIES


@pytest.mark.parametrize("point", BETWEEN_SEND_AND_RECORD)
async def test_killed_between_a_send_and_its_record(home: Home, point: str) -> None:
    """The message is in doubt, and its status settles it: it is sent once, though nobody had noted that it was."""
    settings = SETTINGS | {"IN_DOUBT_WAIT": "60"}
    async with open_service(home, **settings) as (service, stand_in):
        await hold_conversation(service, stand_in, [point])
        assert len(stand_in.world.requests) == REPLIES
        assert service.rows("SELECT max(n) FROM outbox_attempts") == [(1,)]


@pytest.mark.parametrize("point", IN_RECOVERY)
async def test_killed_during_recovery_from_being_killed(home: Home, point: str) -> None:
    """Whatever recovery had done when it died, the next one brings everything back.

    The later it dies, the more is under way then: what was marked but never left is sent when the wait is over.
    """
    settings = SETTINGS | {"IN_DOUBT_WAIT": "10"}
    async with open_service(home, **settings) as (service, stand_in):
        await hold_conversation(service, stand_in, ["channel.send:after:3", point, point])
        assert len(stand_in.world.requests) == REPLIES


@pytest.mark.parametrize("point", ["store.leases.give_back:before:1", "store.leases.give_back:after:1"])
async def test_killed_during_the_drain(home: Home, point: str) -> None:
    """A process that was asked to stop, and died before it had, leaves nothing that the next start does not mend."""
    settings = SETTINGS | {"IN_DOUBT_WAIT": "10", "SHUTDOWN_GRACE": "0"}
    async with open_service(home, **settings) as (service, stand_in):
        phone = stand_in.world.phone("+16505551234", "Ada")
        stand_in.faults.latency = 0.3  # so that the drain finds a request on its way
        async with trio.open_nursery() as nursery:
            start_forked(service, "--kill", point)
            nursery.start_soon(converse, stand_in, phone)
            await eventually(lambda: len(phone.bubbles) >= 3)
            service.signal(signal.SIGTERM)
            assert await service.wait_ended() == -signal.SIGKILL, service.log()
            stand_in.faults.latency = 0.0
            start_forked(service)
        assert phone.transcript() == TRANSCRIPT
        await eventually(lambda: left_over(service) == dict.fromkeys(NOTHING_LEFT, 0))


@pytest.mark.timeout(180)
async def test_killed_at_random_under_load(home: Home) -> None:
    """Twelve conversations at once, ten deaths at moments nobody chose: each ends as if there had been none."""
    chance = random.Random(20260301)
    settings = SETTINGS | {"DAILY_PROMPT_REMINDER_DELAY": "2", "IN_DOUBT_WAIT": "10"}
    async with open_service(home, **settings) as (service, stand_in):
        phones = [stand_in.world.phone(f"+1650555{number:04}", "Ada") for number in range(12)]
        stand_in.faults.latency = 0.05
        async with trio.open_nursery() as nursery:
            for phone in phones:
                nursery.start_soon(partial(converse, stand_in, phone, within=110.0))
            for _ in range(10):
                start_forked(service)
                await service.wait_ready()
                await trio.sleep(chance.uniform(0.0, 0.6))  # how long this one may live
                service.signal(signal.SIGKILL)
                await service.wait_ended()
            start_forked(service)
        for phone in phones:
            assert phone.transcript() == TRANSCRIPT
        await eventually(lambda: left_over(service) == dict.fromkeys(NOTHING_LEFT, 0))
        assert len(stand_in.world.requests) == REPLIES * len(phones)
        assert await service.stop() == 0
