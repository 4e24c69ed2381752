"""kill -9 at the worst moments: restart, and the conversation ends the same."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.support.eventually import eventually
from tests.support.script import TRANSCRIPT, converse
from tests.support.service import open_service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptpipe.simulator.meta_stand_in import MetaStandIn
    from tests.support.service import Service

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]

NOTHING_LEFT = {
    "leased lanes": "SELECT count(*) FROM lanes WHERE leased",
    "running jobs": "SELECT count(*) FROM jobs WHERE worker IS NOT NULL",
    "unhandled events": "SELECT count(*) FROM mailbox_events",
    "unsettled messages": "SELECT count(*) FROM outbox_messages WHERE status IN ('queued', 'sending', 'in_doubt')",
    "unprocessed responses": "SELECT count(*) FROM responses WHERE processed_at IS NULL",
}

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


def start_mortally(service: Service, point: str) -> None:
    """Start the service so that it dies at *point*."""
    service.start([sys.executable, "-m", "tests.faults.root", point], PYTHONPATH="")


async def run_through_deaths(service: Service, points: Sequence[str]) -> None:
    """Start the service to die at each of *points* in turn, and then once more to live."""
    for point in points:
        start_mortally(service, point)
        code = await service.wait_ended(within=40.0)
        assert code == -signal.SIGKILL, service.log()
    service.start()


def left_over(service: Service) -> dict[str, object]:
    """Return what is not yet at its end, by count."""
    return {what: service.rows(query)[0][0] for what, query in NOTHING_LEFT.items()}


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
async def test_killed_before_the_request_or_after_its_record(tmp_path: Path, point: str) -> None:
    """No message is lost, none is processed twice, none is sent twice."""
    settings = {"DAILY_PROMPT_REMINDER_DELAY": "0.5", "IN_DOUBT_WAIT": "0.5"}
    async with open_service(tmp_path, **settings) as (service, stand_in):
        await hold_conversation(service, stand_in, [point])
        assert len(stand_in.world.requests) == sum(who == "service" for who, _ in TRANSCRIPT)


@pytest.mark.parametrize("point", BETWEEN_SEND_AND_RECORD)
async def test_killed_between_a_send_and_its_record(tmp_path: Path, point: str) -> None:
    """The message is in doubt, and its status settles it: it is sent once, though nobody had noted that it was."""
    settings = {"DAILY_PROMPT_REMINDER_DELAY": "0.5", "IN_DOUBT_WAIT": "60"}
    async with open_service(tmp_path, **settings) as (service, stand_in):
        await hold_conversation(service, stand_in, [point])
        assert len(stand_in.world.requests) == sum(who == "service" for who, _ in TRANSCRIPT)
        assert service.rows("SELECT max(n) FROM outbox_attempts") == [(1,)]
