"""Mailboxes: events of many people, appended by webhooks' commits, handled in order by a flow that does nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
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
from promptpipe.model.inbound import Enrollment, InboundBatch, InboundMessage
from promptpipe.model.participants import Address, AddressKind, Profile
from promptpipe.services.readiness import Readiness

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.suite import Suite
    from promptpipe.app import Components
    from promptpipe.flows.flow import FlowContext
    from promptpipe.model.decisions import FlowState
    from promptpipe.model.events import Event
    from promptpipe.ports.store import InboundStore
    from promptpipe.runtime.mailbox_runner import MailboxRunner
    from promptpipe.runtime.worker import Worker

PEOPLE = 400
ITEMS = 20_000
WRITERS = 8
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
        await trio.lowlevel.checkpoint()
        return Decision()


@dataclass(frozen=True)
class Round:
    """Items per second: appended by themselves, then handled and released by themselves; and both at the same time."""

    appended: float
    handled: float
    both: float
    cpu_micros: float
    repeated: int
    disorder: int


@dataclass
class Mailboxes:
    """People and what is in their mailboxes."""

    url: str
    store: InboundStore
    enrollment: Enrollment
    runner: MailboxRunner
    worker: Worker
    flow: NullFlow
    next_number: int = 0

    async def append(self, items: int) -> None:
        """Append to all mailboxes, by several writers with people of their own."""
        each = items // PEOPLE
        async with trio.open_nursery() as nursery:
            for writer in range(WRITERS):
                nursery.start_soon(self._write, range(writer, PEOPLE, WRITERS), each)
        self.next_number += each

    async def _write(self, people: Sequence[int], each: int) -> None:
        messages = [
            message(person, number) for number in range(self.next_number, self.next_number + each) for person in people
        ]
        for first in range(0, len(messages), UPDATES):
            await self.store.ingest(InboundBatch(tuple(messages[first : first + UPDATES])), self.enrollment)

    async def handle(self, items: int, *, beside: int = 0) -> None:
        """Handle so many, while *beside* are appended, until all mailboxes are empty and released."""
        wanted = self.flow.handled + items
        async with trio.open_nursery() as nursery:
            await nursery.start(self.worker.keeper.run)
            await nursery.start(self.runner.run)
            if beside:
                await self.append(beside)
            while self.flow.handled < wanted or count(self.url, LEFT):  # noqa: ASYNC110
                await trio.sleep(0.005)
            nursery.cancel_scope.cancel()


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
    async with app.open_components(settings_for(url, mailbox_concurrency=PEOPLE)) as opened:
        components: Components = replace(opened, flows=[flow], recoverables=[])
        enrollment = Enrollment(flow.flow_type, flow.handler_type, flow.initial_state)
        for person in range(PEOPLE):
            await components.store.participants.enroll(address(person), Profile(), enrollment)

        def mailboxes(appended: int) -> Mailboxes:
            worker = make_worker(components, Readiness())
            runner = next(part for part in make_runners(components, worker) if part.name == "mailbox runner")
            return Mailboxes(url, components.store.inbound, enrollment, runner, worker, flow, appended)  # type: ignore[arg-type]

        app.settle_memory()
        await mailboxes(0).handle(PEOPLE)
        alone, both = mailboxes(0), mailboxes(items // PEOPLE)
        before, begun = time.process_time(), time.perf_counter()
        await alone.append(items)
        appended = time.perf_counter() - begun
        await alone.handle(items)
        handled = time.perf_counter() - begun - appended
        cpu = time.process_time() - before
        begun = time.perf_counter()
        await both.handle(items, beside=items)
        together = time.perf_counter() - begun
        return Round(
            items / appended, items / handled, items / together, cpu / items * 1e6, flow.repeated, flow.disorder
        )


def figures(suite: Suite) -> Iterator[Figure]:
    """Yield how fast events are appended and handled."""
    items = suite.number(ITEMS) // PEOPLE * PEOPLE
    for back_end, bar in zip(BACK_ENDS, (20_000, 15_000), strict=True):
        new = partial(figure, group="lanes", of=back_end)
        rounds = [in_process(_measure, suite.databases.new(back_end), items) for _ in suite.few_rounds]
        yield new(
            [1 / (1 / one.appended + 1 / one.handled) for one in rounds],
            what=f"events appended by webhooks of {UPDATES}, claimed and released",
            unit="/s",
            at_least=bar,
        )
        yield new([one.appended for one in rounds], what="of these, appended alone", unit="/s")
        yield new([one.handled for one in rounds], what="of these, claimed and released alone", unit="/s")
        yield new([one.both for one in rounds], what="appended and handled at the same time", unit="/s")
        yield new([one.cpu_micros for one in rounds], what="the service's CPU for each event", unit="µs")
        yield new([sum(one.repeated for one in rounds)], what="events handled again", unit="")
        yield new([sum(one.disorder for one in rounds)], what="events out of order", unit="", at_most=0)
