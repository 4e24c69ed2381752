"""The outbox: messages to many people, sent to nowhere, with everything that is recorded on the way."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from bench.databases import count
from bench.figures import Figure, figure
from bench.suite import BACK_ENDS
from bench.worker import in_process, settings_for
from promptpipe import app
from promptpipe.app.parts import make_runners, make_worker
from promptpipe.model.ids import MessageId
from promptpipe.model.inbound import Enrollment
from promptpipe.model.messages import NewMessage, SendResult, Text, Verdict
from promptpipe.model.participants import Address, AddressKind, Profile
from promptpipe.services.readiness import Readiness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.suite import Suite
    from promptpipe.app import Components
    from promptpipe.model.messages import Departure, SendOrder

PEOPLE = 400
MESSAGES = 20_000
CONCURRENCY = 400


@dataclass
class NullChannel:
    """Accepts everything, and looks whether it comes in order."""

    name: str = "whatsapp"
    send_timeout: float = 10.0
    sent: int = 0
    disorder: int = 0
    last: dict[str, int] = field(default_factory=dict)

    async def send(self, order: SendOrder, departure: Departure) -> SendResult:
        """Take a message."""
        departure.note()
        number = int(order.message.content.body)
        self.disorder += number != self.last.get(order.message.participant_id, -1) + 1
        self.last[order.message.participant_id] = number
        self.sent += 1
        await trio.lowlevel.checkpoint()
        return SendResult(verdict=Verdict.ACCEPTED, provider_id=f"null.{order.reference}")


async def _fill(components: Components, people: int, messages: int) -> None:
    store, flow = components.store, components.flows[0]
    enrollment = Enrollment(flow.flow_type, flow.handler_type, flow.initial_state)
    ids = []
    for number in range(people):
        address = Address("whatsapp", AddressKind.PHONE, f"+1650{number:07}")
        ids.append((await store.participants.enroll(address, Profile(), enrollment)).id)
    async with trio.open_nursery() as nursery:
        limit = trio.CapacityLimiter(50)

        async def enqueue(person: Any) -> None:
            async with limit:
                for number in range(messages // people):
                    new = NewMessage(
                        id=MessageId(components.new_id()),
                        participant_id=person,
                        channel="whatsapp",
                        content=Text(str(number)),
                    )
                    await store.outbox.enqueue(new)

        for person in ids:
            nursery.start_soon(enqueue, person)


async def _send(url: str, people: int, messages: int) -> tuple[float, float, int]:
    """Send messages to people; return messages per second, the process's CPU µs each, and how many lost their order."""
    channel = NullChannel()
    async with app.open_components(settings_for(url, outbox_concurrency=CONCURRENCY)) as opened:
        components = replace(opened, channels={channel.name: channel})  # type: ignore[dict-item]
        await _fill(components, people, messages)
        worker = make_worker(components, Readiness())
        sender = next(part for part in make_runners(components, worker) if part.name == "outbox sender")
        app.settle_memory()
        before, begun = time.process_time(), time.perf_counter()
        async with trio.open_nursery() as nursery:
            await nursery.start(worker.keeper.run)
            async with trio.open_nursery() as sending:
                await sending.start(sender.run)
                while channel.sent < messages:  # noqa: ASYNC110
                    await trio.sleep(0.005)
                sender.stop()  # it ends when the last result is committed
            took, cpu = time.perf_counter() - begun, time.process_time() - before
            nursery.cancel_scope.cancel()
        if count(url, "SELECT count(*) FROM outbox_messages WHERE status <> 'sent'"):
            raise RuntimeError("not every message is recorded as sent")
        return messages / took, cpu / messages * 1e6, channel.disorder


def figures(suite: Suite) -> Iterator[Figure]:
    """Yield how fast messages leave."""
    for back_end in BACK_ENDS:
        rates, cpu, disorder = [], [], []
        for _ in suite.few_rounds:
            per_second, micros, lost = in_process(_send, suite.databases.new(back_end), PEOPLE, suite.number(MESSAGES))
            rates.append(per_second)
            cpu.append(micros)
            disorder.append(lost)
        new = partial(figure, group="outbox", of=back_end)
        yield new(rates, what="messages sent to 400 people", unit="/s", at_least=5_000)
        yield new(cpu, what="the service's CPU for each message", unit="µs")
        yield new([sum(disorder)], what="messages out of order", unit="", at_most=0)
