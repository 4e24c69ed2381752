"""Schedules of a service that dies: nothing is lost, and nobody is prompted twice."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.spawner import start_forked
from tests.faults.support import wait_settled
from tests.support.commands import run_command
from tests.support.eventually import eventually
from tests.support.service import Home, open_service

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.support.service import Service

pytestmark = pytest.mark.slow

ADA = "+16505551234"
SETTINGS = {"LEASE": "3", "WHATSAPP__SEND_TIMEOUT": "1"}


async def schedules(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `promptpipe schedules` against *service*."""
    return await run_command(["schedules", *arguments], service.environment(), service.folder)


async def answer(service: Service, *arguments: str) -> Any:
    """Return what a command prints as JSON."""
    ended = await schedules(service, *arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


async def test_commands_go_through_the_life_of_a_schedule(tmp_path: Path) -> None:
    """Made, listed, shown, paused, resumed, deleted; what is wrong is said, with the exit code for it."""
    async with open_service(Home.on_sqlite(tmp_path)) as (service, stand_in):
        service.start()
        await service.wait_ready()
        phone = stand_in.world.phone(ADA, "Ada")
        stand_in.say(phone, {"type": "text", "text": {"body": "hi"}}, "hi")
        await eventually(lambda: len(phone.bubbles) >= 2)

        made = await answer(service, "create", ADA, "Time to stretch", "--hour", "9", "--minute", "0")
        fields = {"minute": 0, "hour": 9, "day": None, "month": None, "weekday": None}
        assert (made["fields"], made["timezone"], made["misfire"]) == (fields, "UTC", "RUN")
        by_line = ("--cron", "0 9 * * 1-5", "--timezone", "Europe/Berlin", "--misfire", "skip")
        other = await answer(service, "create", made["participantId"], "Work", *by_line)
        assert (other["cron"], other["timezone"], other["misfire"]) == ("0 9 * * 1-5", "Europe/Berlin", "SKIP")
        assert [item["id"] for item in await answer(service, "list")] == [other["id"], made["id"]]
        assert await answer(service, "list", "--participant", "nobody") == []
        assert await answer(service, "get", made["id"]) == made
        assert (await answer(service, "pause", made["id"]))["paused"] is True
        table = (await schedules(service, "list")).stdout
        assert made["id"] in table
        assert "0 9 * * 1-5" in table
        assert await answer(service, "resume", made["id"]) == made
        assert await answer(service, "delete", made["id"]) == {}
        assert (await schedules(service, "delete", other["id"])).stdout == ""

        gone = await schedules(service, "get", made["id"])
        assert (gone.returncode, gone.stderr) == (1, f"promptpipe: NOT_FOUND: there is no schedule {made['id']}\n")
        for wrong in ([], ["--cron", "often"], ["--cron", "* * * * *", "--hour", "9"], ["--hour", "24"]):
            assert (await schedules(service, "create", ADA, "Never", *wrong)).returncode == 2
        assert await service.stop() == 0


async def test_kill_at_any_point_of_a_firing_costs_and_doubles_nothing(home: Home) -> None:
    """Before the commit, after it, and between what the job does and its end: the prompt comes, once."""
    async with open_service(home, **SETTINGS) as (service, stand_in):
        start_forked(service)
        await service.wait_ready()
        phone = stand_in.world.phone(ADA, "Ada")
        stand_in.say(phone, {"type": "text", "text": {"body": "hi"}}, "hi")
        await eventually(lambda: len(phone.bubbles) >= 2)
        await answer(service, "create", ADA, "Time to stretch", "--hour", "9", "--minute", "0")
        assert await service.stop() == 0
        home.change("UPDATE schedules SET next_at = created_at")

        for point in ("store.schedules.fire:before:1", "store.schedules.fire:after:1", "store.jobs.finish:before:1"):
            start_forked(service, "--kill", point)
            assert await service.wait_ended(within=40.0) == -signal.SIGKILL, service.log()
        start_forked(service)
        await eventually(lambda: ("service", "Time to stretch") in phone.transcript(), within=30.0)
        await wait_settled(service, within=30.0)
        assert phone.transcript().count(("service", "Time to stretch")) == 1
        assert service.rows("SELECT count(*) FROM outbox_messages WHERE class = 'broadcast'") == [(1,)]
        assert service.rows("SELECT kind, status FROM job_history") == [("scheduled_prompt", "done")]
        assert service.rows("SELECT count(*) FROM schedules WHERE next_at > last_at") == [(1,)]
        assert await service.stop() == 0
