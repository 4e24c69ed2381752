"""SIGTERM under load, and exceptions where none is expected."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import httpx2
import pytest
import trio

from tests.faults.load import Load
from tests.faults.spawner import start_forked
from tests.faults.support import NOTHING_LEFT, left_over
from tests.support.eventually import eventually
from tests.support.people import text_webhook
from tests.support.script import TRANSCRIPT, converse
from tests.support.service import open_service

if TYPE_CHECKING:
    from tests.support.service import Home

pytestmark = pytest.mark.slow

GRACE = 3.0


async def test_sigterm_under_load_ends_in_time_and_leaves_nothing_leased(home: Home) -> None:
    """Exit 0 within the grace; the next start goes on where this one stopped, with nothing to repair."""
    async with open_service(home, SHUTDOWN_GRACE=str(GRACE)) as (service, stand_in):
        stand_in.faults.latency = 0.2
        async with httpx2.AsyncClient(timeout=10) as client, trio.open_nursery() as nursery:
            load = Load(post=lambda body: service.post(body, client=client), people=20, each=20)
            start_forked(service, "--echo", "0")
            await service.wait_ready()
            nursery.start_soon(load.run)
            await eventually(lambda: load.acknowledged > 100)
            service.signal(signal.SIGTERM)
            assert await service.wait_ended(within=GRACE + 2.0) == 0, service.log()
            found = left_over(service)
            assert (found["leased lanes"], found["running jobs"]) == (0, 0)
            assert found["unsettled messages"] != 0  # it did not stop for want of work
            on_the_wire = "SELECT count(*) FROM outbox_messages WHERE status IN ('sending', 'in_doubt')"
            assert service.rows(on_the_wire) == [(0,)]
            start_forked(service, "--echo", "0")
        await eventually(lambda: left_over(service) == dict.fromkeys(NOTHING_LEFT, 0), within=30.0)
        load.check_answers(stand_in)


async def test_second_signal_ends_at_once(home: Home) -> None:
    """Whatever it was waiting for."""
    async with open_service(home, SHUTDOWN_GRACE="60") as (service, stand_in):
        stand_in.faults.latency = 30.0
        start_forked(service, "--echo", "0")
        await service.wait_ready()
        async with httpx2.AsyncClient() as client:
            assert await service.post(text_webhook(), client=client) == 200
        await eventually(lambda: service.rows("SELECT status FROM outbox_messages") == [("sending",)])
        service.signal(signal.SIGTERM)
        await eventually(lambda: "draining" in service.log())
        await trio.sleep(0.5)  # a second one that comes within 0.3 s is an echo of the first
        assert service.returncode is None
        service.signal(signal.SIGINT)
        assert await service.wait_ended(within=2.0) == 128 + signal.SIGINT


THROWN = [
    "store.jobs.claim:before:2",
    "store.jobs.finish:after:1",
    "store.mailboxes.claim:before:4",
    "store.mailboxes.claim:after:2",
    "store.outbox.claim:after:2",
    "store.outbox.mark_sending:before:2",
    "store.outbox.mark_sending:after:2",
    "store.outbox.record:before:2",
    "store.outbox.record:after:3",
    "store.leases.extend:before:1",
    "store.probe:after:1",
    "store.recovery.save_report:before:1",
    "store.recovery.requeue_stale_running_jobs:before:1",
]


@pytest.mark.parametrize("point", THROWN)
async def test_unexpected_exception_ends_the_process_and_loses_nothing(home: Home, point: str) -> None:
    """Non-zero, at once, with the reason in the log; the restart goes on as if nothing had been."""
    settings = {
        "DAILY_PROMPT_REMINDER_DELAY": "0.5",
        "IN_DOUBT_WAIT": "3",
        "WHATSAPP__SEND_TIMEOUT": "0.5",
        "LEASE": "1",
    }
    async with open_service(home, **settings) as (service, stand_in):
        phone = stand_in.world.phone("+16505551234", "Ada")
        if "extend" in point:
            stand_in.faults.latency = 0.4  # so that a lease is held when it is time to extend it
        async with trio.open_nursery() as nursery:
            nursery.start_soon(converse, stand_in, phone)
            start_forked(service, "--throw", point)
            assert await service.wait_ended() == 1, service.log()
            assert "thrown at" in service.log()
            stand_in.faults.latency = 0.0
            start_forked(service)
        assert phone.transcript() == TRANSCRIPT
        await eventually(lambda: left_over(service) == dict.fromkeys(NOTHING_LEFT, 0))
