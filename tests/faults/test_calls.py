"""kill -9 around what operators ask for: the answer is lost, and asking again does nothing twice."""

from __future__ import annotations

import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from promptpipe.client import open_channel, v1
from tests.faults.spawner import start_forked
from tests.faults.support import NOTHING_LEFT, left_over
from tests.support.eventually import eventually
from tests.support.service import Home, Service, open_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from grpclib.client import Channel

pytestmark = pytest.mark.slow

GRACE = "+4917012345678"


@asynccontextmanager
async def running(service: Service, *arguments: str) -> AsyncIterator[Channel]:
    """Give a channel to the service, which is started to die as *arguments* say."""
    start_forked(service, *arguments)
    await service.wait_ready()
    async with open_channel(f"127.0.0.1:{service.grpc_port}") as channel:
        yield channel


async def ask_in_vain(service: Service, point: str, ask: Callable[[Channel], Awaitable[object]]) -> None:
    """Make a call during which the service dies at *point*."""
    async with running(service, "--kill", point) as channel:
        with pytest.raises(GRPCError) as raised:
            await ask(channel)
        assert raised.value.status is Status.UNAVAILABLE
        assert await service.wait_ended() == -signal.SIGKILL


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_person_is_enrolled_and_greeted_once(home: Home, moment: str) -> None:
    """Whoever asks again is told that it has happened, if it has."""
    async with open_service(home) as (service, stand_in):
        request = v1.EnrollParticipantRequest(phone_number=GRACE, name="Grace")

        async def enroll(channel: Channel) -> object:
            return await v1.ParticipantServiceStub(channel).enroll_participant(request, timeout=20)

        await ask_in_vain(service, f"store.participants.enroll:{moment}:1", enroll)
        async with running(service) as channel:
            if moment == "before":
                await enroll(channel)
            with pytest.raises(GRPCError) as raised:
                await enroll(channel)
            assert raised.value.status is Status.ALREADY_EXISTS
            await eventually(lambda: left_over(service) == dict.fromkeys(NOTHING_LEFT, 0))
        said = [text for _, text in stand_in.world.phone(GRACE).transcript()]
        assert [text.startswith("Hello Grace!") for text in said] == [True, False]


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_message_with_a_key_is_sent_once(home: Home, moment: str) -> None:
    """The same key finds the message that the dead process has enqueued."""
    async with open_service(home) as (service, stand_in):
        async with running(service) as channel:
            enroll = v1.EnrollParticipantRequest(phone_number=GRACE)
            await v1.ParticipantServiceStub(channel).enroll_participant(enroll)
            await eventually(lambda: left_over(service) == dict.fromkeys(NOTHING_LEFT, 0))
        await service.stop()

        async def enqueue(channel: Channel) -> v1.EnqueueMessageResponse:
            request = v1.EnqueueMessageRequest(to=GRACE, text="once", dedupe_key="k")
            return await v1.OutboxServiceStub(channel).enqueue_message(request, timeout=20)

        await ask_in_vain(service, f"store.outbox.enqueue:{moment}:1", enqueue)
        async with running(service) as channel:
            answers = [await enqueue(channel) for _ in range(2)]
            assert [answer.created for answer in answers] == [moment == "before", False]
            await eventually(lambda: left_over(service) == dict.fromkeys(NOTHING_LEFT, 0))
        assert [text for _, text in stand_in.world.phone(GRACE).transcript()].count("once") == 1
