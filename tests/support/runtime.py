"""The parts of a service on Trio's virtual clock: hours pass in no time, and nothing races with a thread."""

from __future__ import annotations

import random
import sqlite3
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from promptpipe.flows.prompts import PromptComposer
from promptpipe.flows.registry import FlowRegistry
from promptpipe.model.ids import IdSource, MessageId, ParticipantId, WorkerId
from promptpipe.model.inbound import Enrollment
from promptpipe.model.messages import MessageStatus, NewMessage, SendResult, Text, Verdict
from promptpipe.ports.jobs import JobKind
from promptpipe.ports.metrics import SILENT
from promptpipe.runtime.job_runner import JobRunner
from promptpipe.runtime.lease_keeper import LeaseKeeper
from promptpipe.runtime.mailbox_runner import MailboxRunner
from promptpipe.runtime.outbox_sender import OutboxSender
from promptpipe.runtime.persistence import Persistence
from promptpipe.runtime.schedule_runner import ScheduleRunner
from promptpipe.runtime.supervisor import Supervisor
from promptpipe.runtime.wakeups import Wakeups
from promptpipe.runtime.worker import Worker
from promptpipe.services.conversations import Conversations
from promptpipe.services.readiness import Readiness
from promptpipe.storage.sqlite import open_sqlite_store
from promptpipe.storage.sqlite.readers import read_snapshot
from promptpipe.storage.sqlite.writer import run_group
from tests.support.database import RULES
from tests.support.echo import EchoFlow
from tests.support.people import ADA, batch, inbound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from promptpipe.flows.flow import Flow
    from promptpipe.model.jobs import Job
    from promptpipe.model.messages import Departure, InDoubtRules, SendOrder
    from promptpipe.ports.metrics import Metrics
    from promptpipe.ports.store import Store
    from promptpipe.runtime.supervisor import Part

T = TypeVar("T")

EPOCH = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class VirtualClock:
    """`ports.clock.Clock` on Trio's clock. *suspended* seconds have passed without anybody here noticing."""

    suspended = 0.0

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=trio.current_time())

    def boottime(self) -> float:
        return trio.current_time() + self.suspended


class InlineWriter:
    """A `Writer` without a thread: to an autojumping clock, a thread at work looks like nothing to do."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connection = connect()
        self._connection.execute("PRAGMA synchronous = OFF")

    async def run(self, transaction: Callable[[sqlite3.Connection], T]) -> T:
        await trio.lowlevel.checkpoint()
        [result] = run_group(self._connection, [transaction])
        return result.unwrap()  # type: ignore[return-value]

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
        self._connection.close()


class InlineReaders:
    """`Readers` without threads, for the same reason."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connection = connect()

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        await trio.lowlevel.checkpoint()
        return read_snapshot(self._connection, function)

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
        self._connection.close()


@dataclass
class FakeChannel:
    """A channel that accepts everything, at once, unless told otherwise."""

    name: str = "whatsapp"
    send_timeout: float = 10.0
    sent: list[tuple[float, str]] = field(default_factory=list)
    answers: list[SendResult | Callable[[SendOrder, Departure], Awaitable[SendResult]]] = field(default_factory=list)

    async def send(self, order: SendOrder, departure: Departure) -> SendResult:
        await trio.lowlevel.checkpoint()
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None and not isinstance(answer, SendResult):
            return await answer(order, departure)
        departure.note()
        if answer is None or answer.verdict is Verdict.ACCEPTED:
            self.sent.append((trio.current_time(), order.message.content.body))
            return SendResult(verdict=Verdict.ACCEPTED, provider_id=f"wamid.{order.reference}")
        return answer

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.sent]


@dataclass
class Runtime:
    """The runners over a store, as `app.run` puts them together, without the HTTP server."""

    store: Store
    database: Path
    clock: VirtualClock
    new_id: IdSource
    wakeups: Wakeups
    channel: FakeChannel
    readiness: Readiness
    worker: Worker
    supervisor: Supervisor
    parts: list[Part]

    async def hear(self, *texts: str, sender: str = ADA) -> None:
        """Take in texts that someone wrote."""
        enrollment = Enrollment("echo", "echo", "ACTIVE")
        now = self.clock.now()
        messages = [inbound(text, sender, provider_time=now) for text in texts]
        await self.store.inbound.ingest(batch(*messages), enrollment)

    async def enqueue(self, text: str) -> None:
        """Put a text into the outbox, for the only person there is."""
        [(person,)] = self.rows("SELECT id FROM conversation_participants")
        new = NewMessage(
            id=MessageId(self.new_id()),
            participant_id=ParticipantId(str(person)),
            channel=self.channel.name,
            content=Text(text),
        )
        await self.store.outbox.enqueue(new)

    def rows(self, sql: str, *parameters: object) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(sql, parameters).fetchall()

    def change(self, sql: str, *parameters: object) -> None:
        """Change the database behind the store's back, as an operator with a shell may."""
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute(sql, parameters)

    async def status(self, text: str) -> MessageStatus:
        """Return the status of the message with a body."""
        [(message_id,)] = self.rows("SELECT id FROM outbox_messages WHERE json_extract(body, '$.body') = ?", text)
        return (await self.store.outbox.get(MessageId(str(message_id)))).status


def kind_of(handler: Callable[[Job], Awaitable[None]], **options: Any) -> JobKind[Any]:
    """Return the kind `work`, whose jobs are done by *handler*."""

    async def run(job: Job, payload: Mapping[str, object]) -> None:
        del payload
        await handler(job)

    return JobKind(name="work", run=run, **options)


@asynccontextmanager
async def open_runtime(
    folder: Path,
    *,
    flows: Sequence[Flow] = (),
    kinds: Sequence[JobKind[Any]] = (),
    channel: FakeChannel | None = None,
    wrap: Callable[[Store], Store] = lambda store: store,
    slots: int = 10,
    queues: Sequence[str] = ("default",),
    grace: float = 10.0,
    lease: float = 30.0,
    in_doubt: InDoubtRules = RULES,
    metrics: Metrics = SILENT,
) -> AsyncIterator[Runtime]:
    """Give a runtime that is not started yet. *wrap* may put something between the runners and the store."""
    clock = VirtualClock()
    wakeups = Wakeups()
    chance = random.Random(11)
    new_id = IdSource(clock.now, chance.getrandbits)
    async with open_sqlite_store(
        folder / "test.db",
        clock=clock,
        ids=new_id,
        worker=WorkerId(new_id()),
        rules=in_doubt,
        runners=wakeups,
        make_writer=InlineWriter,
        make_readers=InlineReaders,
        metrics=metrics,
    ) as opened:
        store = wrap(opened)
        readiness = Readiness()
        persistence = Persistence(chance.random, readiness.store_failed)
        worker = Worker(
            id=WorkerId(opened.recovery._worker),
            clock=clock,
            keeper=LeaseKeeper(store.leases, clock, persistence, lease_seconds=lease, metrics=metrics),
            wakeups=wakeups,
            persistence=persistence,
            random=chance.random,
            metrics=metrics,
        )
        used = channel or FakeChannel()
        registry = FlowRegistry(flows or [EchoFlow()])
        conversations = Conversations(registry, PromptComposer(None), clock, new_id)
        yield Runtime(
            store=store,
            database=folder / "test.db",
            clock=clock,
            new_id=new_id,
            wakeups=wakeups,
            channel=used,
            readiness=readiness,
            worker=worker,
            supervisor=Supervisor(grace=grace),
            parts=[
                JobRunner(
                    store.jobs,
                    {kind.name: kind for kind in kinds},
                    registry.job_kinds,
                    worker,
                    slots=slots,
                    queues=queues,
                ),
                MailboxRunner(store.mailboxes, conversations.decide, worker, slots=slots),
                OutboxSender(store.outbox, {used.name: used}, worker, slots=slots),  # type: ignore[dict-item]
                ScheduleRunner(store.schedules, worker),
            ],
        )


@asynccontextmanager
async def running(runtime: Runtime) -> AsyncIterator[Runtime]:
    """Run the parts for as long as the context lasts, then drain them."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_supervised, runtime)
        await trio.testing.wait_all_tasks_blocked()
        yield runtime
        runtime.supervisor.stop()


async def run_supervised(runtime: Runtime) -> None:
    """Run the parts until the supervisor is stopped."""
    await runtime.supervisor.run(
        runtime.parts,
        before=[runtime.worker.keeper.run],
        after=[partial(runtime.readiness.run, runtime.store)],
        draining=runtime.readiness.drain,
    )
