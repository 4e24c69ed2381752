"""The gRPC plane over a real store, as the product puts it together, and a client of it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import trio
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, ResourceInfo
from grpclib.exceptions import GRPCError

from promptpipe.app.components import open_components
from promptpipe.app.parts import make_exclusive_recovery, make_recovery, make_rpc_server, make_runners, make_worker
from promptpipe.client import open_channel, v1
from promptpipe.config import load_settings
from promptpipe.net import listen
from promptpipe.runtime.mailbox_runner import MailboxRunner
from promptpipe.services.readiness import Readiness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from grpclib.client import Channel
    from grpclib.const import Status

    from promptpipe.app.components import Components
    from promptpipe.flows.prompts import PromptGenerator
    from promptpipe.ports.store import Store
    from tests.support.service import Home

ADA = "+16505551234"
BOB = "+16505554321"


@dataclass
class Admin:
    """Stubs of every service, and the components behind them."""

    components: Components
    readiness: Readiness
    channel: Channel
    participants: v1.ParticipantServiceStub = field(init=False)
    jobs: v1.JobServiceStub = field(init=False)
    outbox: v1.OutboxServiceStub = field(init=False)
    history: v1.HistoryServiceStub = field(init=False)
    flows: v1.FlowServiceStub = field(init=False)
    prompts: v1.PromptServiceStub = field(init=False)
    recovery: v1.RecoveryServiceStub = field(init=False)

    def __post_init__(self) -> None:
        self.participants = v1.ParticipantServiceStub(self.channel)
        self.jobs = v1.JobServiceStub(self.channel)
        self.outbox = v1.OutboxServiceStub(self.channel)
        self.history = v1.HistoryServiceStub(self.channel)
        self.flows = v1.FlowServiceStub(self.channel)
        self.prompts = v1.PromptServiceStub(self.channel)
        self.recovery = v1.RecoveryServiceStub(self.channel)

    async def enroll(self, number: str = ADA, **profile: str) -> v1.Participant:
        """Enroll someone and return them."""
        request = v1.EnrollParticipantRequest(phone_number=number, **profile)
        answer = await self.participants.enroll_participant(request)
        assert answer.participant is not None
        return answer.participant

    async def enqueue(self, kind: str = "noop", **other: Any) -> v1.Job:
        """Enqueue a job and return it."""
        answer = await self.jobs.enqueue_job(v1.EnqueueJobRequest(kind=kind, **other))
        assert answer.job is not None
        return answer.job


@asynccontextmanager
async def open_admin(
    home: Home,
    wrap: Callable[[Store], Store] = lambda store: store,
    *,
    handles: bool = False,
    generators: Sequence[PromptGenerator] = (),
) -> AsyncIterator[Admin]:
    """Give the gRPC plane of a service on a database of its own, with *wrap* around the store.

    Nothing but what somebody asks for happens, unless it *handles* events.
    """
    settings = load_settings(database_url=home.database_url)
    readiness = Readiness()
    with listen("127.0.0.1", 0, "test") as listener:
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        async with open_components(settings) as components, trio.open_nursery() as nursery:
            components.store = wrap(components.store)
            components.prompt_generators = generators
            worker = make_worker(components, readiness)
            recovery = make_exclusive_recovery(components, worker, make_recovery(components))
            server = make_rpc_server(components, readiness, recovery, listener)
            await nursery.start(server.run)
            if handles:
                await nursery.start(worker.keeper.run)
                [mailboxes] = [part for part in make_runners(components, worker) if part.name == MailboxRunner.name]
                await nursery.start(mailboxes.run)
            async with open_channel(target) as channel:
                yield Admin(components, readiness, channel)
            nursery.cancel_scope.cancel()


async def refused(call: Awaitable[object], status: Status) -> GRPCError:
    """Return the error that *call* is refused with, which has *status*."""
    with pytest.raises(GRPCError) as raised:
        await call
    assert raised.value.status is status, raised.value
    return raised.value


def reason(error: GRPCError) -> str:
    """Return the stable code in an error's details."""
    [info] = [detail for detail in error.details or () if isinstance(detail, ErrorInfo)]
    assert info.domain == "promptpipe"
    return str(info.reason)


def violation(error: GRPCError) -> tuple[str, str]:
    """Return the field and the rule that an INVALID_ARGUMENT names."""
    [request] = [detail for detail in error.details or () if isinstance(detail, BadRequest)]
    [found] = request.field_violations
    return found.field, found.description


def resource(error: GRPCError) -> tuple[str, str]:
    """Return the kind and name of what an error is about."""
    [info] = [detail for detail in error.details or () if isinstance(detail, ResourceInfo)]
    return info.resource_type, info.resource_name
