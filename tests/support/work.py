"""A service's work done step by step, by a store's methods alone: what its runners would do, in a test's own order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.flows.prompts import BranchHandler, GenAiHandler, PromptComposer
from promptpipe.flows.registry import FlowRegistry
from promptpipe.model.decisions import Decided
from promptpipe.model.jobs import Ending, Fire
from promptpipe.model.messages import SendRecord, Settlement, Verdict, readable
from promptpipe.services.conversations import Conversations
from tests.support.database import LEASE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptpipe.flows.flow import Flow
    from promptpipe.flows.prompts import PromptGenerator
    from promptpipe.ports.generator import TextGenerator
    from tests.support.database import Database

AT_ONCE = 100


class Working:
    """Does all that is due on *db*, and keeps what was sent."""

    def __init__(
        self,
        db: Database,
        flows: Sequence[Flow],
        *,
        generator: TextGenerator | None = None,
        custom: Sequence[PromptGenerator] = (),
    ) -> None:
        self.db = db
        self.registry = FlowRegistry(flows, [BranchHandler(), GenAiHandler(generator)])
        self.conversations = Conversations(self.registry, PromptComposer(generator, custom), db.clock, db.new_id)
        self.sent: list[str] = []

    async def everything(self) -> list[str]:
        """Do all that is due now, and what comes of it, and return what was said meanwhile."""
        before = len(self.sent)
        while await self.fire() + await self.run_jobs() + await self.handle_events() + await self.send():
            pass
        return self.sent[before:]

    async def fire(self) -> int:
        """Let due schedules make their jobs."""
        return (await self.db.store.schedules.fire(AT_ONCE)).jobs

    async def run_jobs(self) -> int:
        """Let due timers become events."""
        claimed = await self.db.store.jobs.claim(self.db.claim(AT_ONCE))
        if claimed.items:
            await self.db.store.jobs.finish([Ending(leased.lease, Fire()) for leased in claimed.items])
        return len(claimed.items)

    async def handle_events(self) -> int:
        """Have waiting events handled, each by itself; what goes wrong with one is raised."""
        count = 0
        waiting = list((await self.db.store.mailboxes.claim(self.db.claim(AT_ONCE))).items)
        while waiting:
            delivery = waiting.pop(0)
            decision = await self.conversations.decide(delivery)
            [following] = await self.db.store.mailboxes.decide([Decided(delivery, decision, LEASE_SECONDS)])
            if isinstance(following, Exception):
                raise following
            if following is not None:
                waiting.insert(0, following)
            count += 1
        return count

    async def send(self) -> int:
        """Have the provider take what is to be sent."""
        outbox, count = self.db.store.outbox, 0
        lanes = (await outbox.claim(self.db.claim(AT_ONCE))).items
        orders = await outbox.mark_sending(lanes, seconds=LEASE_SECONDS)
        while going := [order for order in orders if order is not None and not isinstance(order, Exception)]:
            self.sent += [readable(order.message.content) for order in going]
            count += len(going)
            orders = await outbox.record(
                [
                    SendRecord(
                        order,
                        Settlement(verdict=Verdict.ACCEPTED, provider_id=f"wamid.{order.reference}"),
                        LEASE_SECONDS,
                    )
                    for order in going
                ]
            )
        return count
