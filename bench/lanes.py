"""Mailboxes: events of many people, appended, and handled in order by a flow that does nothing.

They are appended by the statements that every commit appends with, a thousand at a time; or by webhooks, whose commits
keep what was said besides, and that it was said.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import trio

from bench.databases import count
from bench.figures import Figure, figure
from bench.suite import BACK_ENDS
from bench.worker import in_process, settings_for
from promptpipe import app
from promptpipe.app.parts import make_runners, make_worker
from promptpipe.model.decisions import Decision
from promptpipe.model.events import Replied
from promptpipe.model.ids import ResponseId
from promptpipe.model.inbound import Enrollment, InboundBatch, InboundMessage
from promptpipe.model.participants import Address, AddressKind, Profile
from promptpipe.services.readiness import Readiness
from promptpipe.storage.transactions import mailbox_events

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.suite import Suite
    from promptpipe.app import Components
    from promptpipe.flows.flow import FlowContext
    from promptpipe.model.decisions import FlowState
    from promptpipe.model.events import Event
    from promptpipe.model.ids import ParticipantId
    from promptpipe.storage.transactions.store import SqlStore

PEOPLE = 400
ITEMS = 20_000
WRITERS = 8
AT_ONCE = 1_000
"""How many events are appended in one commit."""
UPDATES = 50
"""How many updates a webhook request brings; Meta puts up to 1,000 into one."""

RAW = b'{"id": "wamid.HBgLMTY1MDU1NTEyMzQVAgASGBQzQUZBMTIzNDU2Nzg5MEFCQ0RFRgA=", "type": "text"}'
LEFT = "SELECT (SELECT count(*) FROM mailbox_events) + (SELECT count(*) FROM lanes WHERE leased)"


@dataclass
class NullFlow:
    """Does nothing, and looks whether it comes in order."""

    flow_type: str = "null"
    handler_type: str = "null"
    initial_state: str = "ACTIVE"
    job_kinds: frozenset[str] = frozenset()
    handled: int = 0
    repeated: int = 0
    disorder: int = 0
    last: dict[str, int] = field(default_factory=dict)

    async def handle(self, event: Event, state: FlowState, context: FlowContext) -> Decision:
        """Take an event."""
        del context
        if isinstance(event, Replied):
            number = int(event.text)
            last = self.last.get(state.participant_id, -1)
            self.repeated += number == last
            self.disorder += number not in (last, last + 1)
            self.last[state.participant_id] = number
        self.handled += 1
        return Decision()


@dataclass(frozen=True)
class Round:
    """Items per second: appended, and then handled and released; by webhooks, alone and while others are handled."""

    appended: float
    handled: float
    cpu_micros: float
    ingested: float
    both: float
    repeated: int
    disorder: int


@dataclass
class Mailboxes:
    """People and what is in their mailboxes."""

    url: str
    store: SqlStore
    people: Sequence[ParticipantId]
    enrollment: Enrollment
    flow: NullFlow
    next_number: int = 0

    async def append(self, items: int) -> None:
        """Append to all mailboxes in turn."""
        events = [(self.people[person], replied(number)) for number in self._numbers(items) for person in range(PEOPLE)]
        for first in range(0, len(events), AT_ONCE):
            some = events[first : first + AT_ONCE]
            await self.store._database.write(partial(mailbox_events.append, events=some))  # noqa: SLF001

    async def ingest(self, items: int) -> None:
        """Have webhooks append to all mailboxes, by several writers with people of their own."""
        numbers = self._numbers(items)
        async with trio.open_nursery() as nursery:
            for writer in range(WRITERS):
                nursery.start_soon(self._write, range(writer, PEOPLE, WRITERS), numbers)

    async def _write(self, people: Sequence[int], numbers: Sequence[int]) -> None:
        messages = [message(person, number) for number in numbers for person in people]
        for first in range(0, len(messages), UPDATES):
            await self.store.inbound.ingest(InboundBatch(tuple(messages[first : first + UPDATES])), self.enrollment)

    def _numbers(self, items: int) -> Sequence[int]:
        numbers = range(self.next_number, self.next_number + items // PEOPLE)
        self.next_number = numbers.stop
        return numbers

    async def handle(self, components: Components, items: int, *, beside: int = 0) -> None:
        """Handle so many, while *beside* are ingested, until all mailboxes are empty and released."""
        worker = make_worker(components, Readiness())
        runner = next(part for part in make_runners(components, worker) if part.name == "mailbox runner")
        wanted = self.flow.handled + items
        async with trio.open_nursery() as nursery:
            await nursery.start(worker.keeper.run)
            await nursery.start(runner.run)
            if beside:
                await self.ingest(beside)
            while self.flow.handled < wanted or count(self.url, LEFT):  # noqa: ASYNC110
                await trio.sleep(0.005)
            nursery.cancel_scope.cancel()


def replied(number: int) -> Replied:
    """Return what somebody's writing comes to."""
    return Replied(
        response_id=ResponseId(f"0199c3a4-7d2e-7a31-9f40-{number:012}"),
        channel="whatsapp",
        type="text",
        text=str(number),
        said_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
    )


def message(person: int, number: int) -> InboundMessage:
    """Return what someone writes."""
    return InboundMessage(
        channel="whatsapp",
        number_id="106540352242922",
        provider_id=f"wamid.{person}.{number}",
        senders=(address(person),),
        type="text",
        text=str(number),
        raw=RAW,
    )


def address(person: int) -> Address:
    """Return someone's number."""
    return Address("whatsapp", AddressKind.PHONE, f"+1650{person:07}")


async def _measure(url: str, items: int) -> Round:
    flow = NullFlow()
    async with app.open_components(settings_for(url)) as opened:
        components: Components = replace(opened, flows=[flow], recoverables=[])
        enrollment = Enrollment(flow.flow_type, flow.handler_type, flow.initial_state)
        enroll = components.store.participants.enroll
        people = [(await enroll(address(person), Profile(), enrollment)).id for person in range(PEOPLE)]
        boxes = Mailboxes(url, components.store, people, enrollment, flow)  # type: ignore[arg-type]
        app.settle_memory()
        await boxes.handle(components, PEOPLE)
        await boxes.append(PEOPLE)
        await boxes.handle(components, PEOPLE)

        before, begun = time.process_time(), time.perf_counter()
        await boxes.append(items)
        appended = time.perf_counter() - begun
        await boxes.handle(components, items)
        handled = time.perf_counter() - begun - appended
        cpu = time.process_time() - before

        begun = time.perf_counter()
        await boxes.ingest(items)
        ingested = time.perf_counter() - begun
        await boxes.handle(components, items)
        begun = time.perf_counter()
        await boxes.handle(components, items, beside=items)
        both = time.perf_counter() - begun
        return Round(
            appended=items / appended,
            handled=items / handled,
            cpu_micros=cpu / items * 1e6,
            ingested=items / ingested,
            both=items / both,
            repeated=flow.repeated,
            disorder=flow.disorder,
        )


def figures(suite: Suite) -> Iterator[Figure]:
    """Yield how fast events are appended and handled."""
    items = suite.number(ITEMS) // PEOPLE * PEOPLE
    for back_end, bar in zip(BACK_ENDS, (20_000, 15_000), strict=True):
        new = partial(figure, group="lanes", of=back_end)
        rounds = [in_process(_measure, suite.databases.new(back_end), items) for _ in suite.few_rounds]
        yield new(
            [1 / (1 / one.appended + 1 / one.handled) for one in rounds],
            what="events appended, claimed and released",
            unit="/s",
            at_least=bar,
        )
        yield new([one.appended for one in rounds], what="of these, appended alone", unit="/s")
        yield new([one.handled for one in rounds], what="of these, claimed and released alone", unit="/s")
        yield new([one.cpu_micros for one in rounds], what="the service's CPU for each event", unit="µs")
        yield new([one.ingested for one in rounds], what=f"appended by webhooks of {UPDATES} alone", unit="/s")
        yield new([one.both for one in rounds], what="handled while webhooks append", unit="/s")
        yield new([sum(one.repeated for one in rounds)], what="events handled again", unit="")
        yield new([sum(one.disorder for one in rounds)], what="events out of order", unit="", at_most=0)
