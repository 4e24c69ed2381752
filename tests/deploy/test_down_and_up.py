"""What `down` and `up -d` do, with processes in the place of containers and folders in the place of volumes."""

from __future__ import annotations

import shutil
import signal
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from promptpipe.cli.remote import every
from promptpipe.client import open_channel, v1
from promptpipe.simulator.faults import Fault
from tests.deploy.volumes import PostgresVolume, SqliteVolume
from tests.support.eventually import eventually
from tests.support.people import ADA, BOB
from tests.support.postgres import Programs, Server, server_folder
from tests.support.script import TRANSCRIPT, converse, say
from tests.support.service import Home, open_service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.deploy.volumes import Volume
    from tests.support.service import Service

pytestmark = pytest.mark.slow

REMINDER_SECONDS = 5.0
"""Many times what lies between a prompt and the `down` that is to come before its reminder."""
WELCOME = TRANSCRIPT[:3]
ASKED = TRANSCRIPT[:5]
"""Up to the second question."""
PROMPTED = TRANSCRIPT[:-3]
"""Up to the prompt that nobody has answered yet."""
QUEUED = ["one", "two", "three"]
MANY = 1000
LATE = "person", "said while nobody listened"


@pytest.fixture(params=["sqlite", "postgres"])
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Volume]:
    """Give a volume that is not made yet, for each back end."""
    with volumes_of(request.param, tmp_path) as volume:
        yield volume


@contextmanager
def volumes_of(back_end: str, tmp_path: Path) -> Iterator[Volume]:
    """Give a volume for a back end by name, and leave no process behind."""
    if back_end == "sqlite":
        yield SqliteVolume(tmp_path / "volume")
        return
    with server_folder() as folder:
        server = Server(Programs.installed(folder), folder / "volume")
        try:
            yield PostgresVolume(server)
        finally:
            server.stop(signal.SIGQUIT)


async def up(volume: Volume, service: Service) -> None:
    """Do what `up -d` does: the database first, then the service in a container that has never been used."""
    volume.up()
    service.folder.mkdir()
    service.start()
    await service.wait_ready()


async def down(volume: Volume, service: Service, end: signal.Signals = signal.SIGTERM) -> None:
    """Do what `down` does: end the service, then the database, and remove all that is in no volume."""
    service.signal(end)
    assert await service.wait_ended() == (0 if end is signal.SIGTERM else -end), service.log()
    volume.down(end)
    shutil.rmtree(service.folder)


async def kept(service: Service) -> dict[str, dict[str, Any]]:
    """Return all participants, jobs and messages by id, as an operator sees them."""
    async with open_channel(f"127.0.0.1:{service.grpc_port}") as channel:
        people = v1.ParticipantServiceStub(channel)
        jobs = v1.JobServiceStub(channel)
        outbox = v1.OutboxServiceStub(channel)
        lists = {
            "participants": await every(people.list_participants, v1.ListParticipantsRequest(), "participants", MANY),
            "jobs": await every(jobs.list_jobs, v1.ListJobsRequest(), "jobs", MANY),
            "messages": await every(outbox.list_messages, v1.ListMessagesRequest(), "messages", MANY),
        }
    return {name: {item.id: item for item in items} for name, items in lists.items()}


async def enqueue_for_next_century(service: Service) -> tuple[str, bool]:
    """Enqueue a job, which is the same one each time, and return its id and whether it was new."""
    request = v1.EnqueueJobRequest(kind="noop", run_at=datetime(2100, 1, 1, tzinfo=UTC), dedupe_key="new-century")
    async with open_channel(f"127.0.0.1:{service.grpc_port}") as channel:
        answer = await v1.JobServiceStub(channel).enqueue_job(request)
    assert answer.job is not None
    return answer.job.id, answer.created


async def enqueue_messages(service: Service, number: str) -> None:
    """Enqueue messages to somebody, beside their conversation."""
    async with open_channel(f"127.0.0.1:{service.grpc_port}") as channel:
        outbox = v1.OutboxServiceStub(channel)
        for text in QUEUED:
            await outbox.enqueue_message(v1.EnqueueMessageRequest(to=number, text=text, dedupe_key=text))


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
async def test_down_and_up_keep_everything(volume: Volume, tmp_path: Path, end: signal.Signals) -> None:
    """Conversations, timers, queues and what was said before; a machine that loses power does no worse than `down`."""
    container = tmp_path / "container"
    settings = {"DAILY_PROMPT_REMINDER_DELAY": str(REMINDER_SECONDS), "SHUTDOWN_GRACE": "2"}
    async with open_service(Home(container, volume.url), **settings) as (service, stand_in):
        await up(volume, service)
        asked, prompted = (stand_in.world.phone(number, "Ada") for number in (ADA, BOB))
        await converse(stand_in, asked, ASKED)
        await converse(stand_in, prompted, PROMPTED)
        stand_in.faults.errors = Fault(share=1.0)
        await enqueue_messages(service, ADA)
        job = await enqueue_for_next_century(service)
        before = await kept(service)
        await down(volume, service, end)
        assert list(tmp_path.glob("container/*")) == []
        assert (asked.transcript(), prompted.transcript()) == (ASKED, PROMPTED)

        say(stand_in, asked, LATE[1])
        stand_in.faults.errors = Fault()
        await up(volume, service)
        after = await kept(service)
        assert [(name, item) for name, items in before.items() for item in items if item not in after[name]] == []
        assert after["participants"] == before["participants"]
        assert await enqueue_for_next_century(service) == (job[0], False)
        await converse(stand_in, prompted, TRANSCRIPT, said=len(PROMPTED))
        assert prompted.transcript() == TRANSCRIPT
        expected, queued = [*ASKED, LATE, TRANSCRIPT[len(ASKED) + 1]], [("service", text) for text in QUEUED]
        await eventually(lambda: len(asked.bubbles) >= len(expected) + len(queued))
        # Replies may overtake what an operator has enqueued.
        assert [line for line in asked.transcript() if line not in queued] == expected
        assert [line for line in asked.transcript() if line in queued] == queued
        await down(volume, service)


async def test_only_removing_the_volume_destroys(volume: Volume, tmp_path: Path) -> None:
    """After `down -v` and `up -d`, nobody is known, and whoever writes is greeted as a stranger."""
    async with open_service(Home(tmp_path / "container", volume.url)) as (service, stand_in):
        await up(volume, service)
        phone = stand_in.world.phone("+16505550001", "Ada")
        await converse(stand_in, phone, WELCOME)
        job, _ = await enqueue_for_next_century(service)
        await down(volume, service)
        volume.destroy()
        await up(volume, service)
        assert await kept(service) == {"participants": {}, "jobs": {}, "messages": {}}
        assert (await enqueue_for_next_century(service))[0] != job
        say(stand_in, phone, "hi")
        await eventually(lambda: len(phone.bubbles) == 2 * len(WELCOME))
        assert phone.transcript() == [*WELCOME, *WELCOME]
        await down(volume, service)
