"""One participant's life on a clock that the test moves, lived step by step by processes that crash in between."""

from __future__ import annotations

import itertools
import random
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeVar

from promptpipe.flows.conversation import ConversationFlow, ConversationFlowRecovery, ConversationSettings
from promptpipe.model.decisions import Decided
from promptpipe.model.ids import IdSource
from promptpipe.model.jobs import Ending, Fire
from promptpipe.model.messages import Choices, SendOrder, SendRecord, Settlement, Verdict
from promptpipe.services.participants import Participants
from tests.support.conversing import TEXTS
from tests.support.database import LEASE_SECONDS
from tests.support.people import ADA, batch, inbound
from tests.support.recovering import CONVERSATION, manager
from tests.support.screenplay import ENROLL, PERSON, SERVICE, STATUSES, Line
from tests.support.work import AT_ONCE, Working

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from promptpipe.model.inbound import InboundMessage
    from promptpipe.model.leases import Claim, Claimed
    from promptpipe.model.messages import Content
    from promptpipe.ports.generator import TextGenerator
    from tests.support.database import Database
    from tests.support.screenplay import Screenplay

T = TypeVar("T")

COACH = ConversationSettings(texts=TEXTS)
"""With all times as they are unless somebody sets others."""


class Crash(Enum):
    """When processes crash."""

    NEVER = auto()
    BETWEEN_STEPS = auto()
    """Before each thing that they do, and before the clock moves on to the next."""
    IN_HAND = auto()
    """With a job, an outbox, or an event and what was decided about it: claimed, and nothing committed.

    The next process claims the same, and lives.
    """


class Life:
    """Ada's. It can be read in `transcript`; `repaired` names what recovery has repaired in it.

    Of each *every* opportunities for a crash one is used, another one each time.
    """

    def __init__(
        self,
        db: Database,
        screenplay: Screenplay,
        crash: Crash,
        *,
        every: int = 1,
        model: TextGenerator | None = None,
    ) -> None:
        self.transcript: list[Line] = []
        self.repaired: list[str] = []
        self._db = db
        self._screenplay = screenplay
        self._crash = crash
        self._every = every
        self._model = model
        self._processes = itertools.count(1)
        self._opportunities = itertools.count()
        self._again = False
        self._due_in: list[float] = []
        self._buttons: dict[str, str] = {}
        self._working: Working

    async def live(self) -> None:
        """Do what people and operators do in the screenplay, and all that comes of it."""
        await self._start()
        for line in self._screenplay.lines:
            if line.who != SERVICE:
                await self._go_on_until(line.at)
                self._note(line.who, line.text)
                await self._act(line)
        await self._go_on_until(self._screenplay.end)

    async def _go_on_until(self, end: datetime) -> None:
        """Do what is due, and move the clock to where more is, until *end*."""
        now = self._db.clock.now()
        while now < end:
            while await self._step():
                pass
            soon = min([(end - now).total_seconds(), *self._due_in])
            assert soon > 0, "something is due that was not handed out"
            self._db.clock.advance(soon)
            now = self._db.clock.now()

    async def _act(self, line: Line) -> None:
        """Do what a person or an operator does."""
        people = Participants(self._db.store.participants, "whatsapp", CONVERSATION)
        if line.who == PERSON:
            await self._db.store.inbound.ingest(batch(self._message(line.text)), None)
        elif line.text == ENROLL:
            await people.enroll(ADA, {"name": "Ada", "timezone": self._screenplay.zone})
        else:
            ada = await people.with_number("phone_number", ADA)
            await people.update(ada.id, {}, STATUSES[line.text])

    def _message(self, text: str) -> InboundMessage:
        """Return what the phone sends; a text in brackets is a button, of the last message that has it."""
        now = self._db.clock.now()
        if text in self._buttons:
            return inbound(text.strip("[]"), type="interactive", choice_id=self._buttons[text], provider_time=now)
        return inbound(text, provider_time=now)

    # ---------------------------------------------------------------- the service's steps

    async def _step(self) -> bool:
        """Do the first thing that is due; return whether there was one."""
        if self._crashes(Crash.BETWEEN_STEPS):
            await self._start_again()
        self._due_in.clear()
        return await self._fire() or await self._run_job() or await self._handle_event() or await self._send()

    async def _fire(self) -> bool:
        fired = await self._db.store.schedules.fire(AT_ONCE)
        self._expect(fired.next_due_in)
        return fired.jobs > 0

    async def _run_job(self) -> bool:
        while (leased := await self._claim(self._db.store.jobs.claim)) is not None:
            if not await self._crash_in_hand():
                assert not await self._db.store.jobs.finish([Ending(leased.lease, Fire())])
                return True
        return False

    async def _handle_event(self) -> bool:
        while (delivery := await self._claim(self._db.store.mailboxes.claim)) is not None:
            decision = await self._working.conversations.decide(delivery)
            if not await self._crash_in_hand():
                assert await self._db.store.mailboxes.decide([Decided(delivery, decision, None)]) == [None]
                return True
        return False

    async def _send(self) -> bool:
        while (lease := await self._claim(self._db.store.outbox.claim)) is not None:
            if not await self._crash_in_hand():
                [order] = await self._db.store.outbox.mark_sending([lease], seconds=LEASE_SECONDS)
                if isinstance(order, SendOrder):
                    await self._arrive(order)
                return True
        return False

    async def _arrive(self, order: SendOrder) -> None:
        """Let a message reach the phone, and the provider say so."""
        content = order.message.content
        self._note(SERVICE, shown(content))
        if isinstance(content, Choices):
            self._buttons |= {f"[{choice.label}]": choice.id for choice in content.choices}
        accepted = Settlement(verdict=Verdict.ACCEPTED, provider_id=f"wamid.{order.reference}")
        assert await self._db.store.outbox.record([SendRecord(order, accepted, None)]) == [None]

    async def _claim(self, claim: Callable[[Claim], Awaitable[Claimed[T]]]) -> T | None:
        """Claim one thing, and note in how many seconds there will be more."""
        claimed = await claim(self._db.claim(1))
        self._expect(claimed.next_due_in)
        return claimed.items[0] if claimed.items else claimed.suspect

    def _expect(self, due_in: float | None) -> None:
        if due_in is not None:
            self._due_in.append(due_in)

    def _note(self, who: str, text: str) -> None:
        self.transcript.append(Line(self._db.clock.now(), who, text))

    # ---------------------------------------------------------------- processes

    async def _crash_in_hand(self) -> bool:
        """Crash with what was just claimed, if that is to happen and did not happen with it before; return whether."""
        self._again = not self._again and self._crashes(Crash.IN_HAND)
        if self._again:
            await self._start_again()
        return self._again

    def _crashes(self, crash: Crash) -> bool:
        """Return whether an opportunity for a crash is used."""
        if self._crash is not crash:
            return False
        number = next(self._opportunities)
        return (number + number // self._every) % self._every == 0

    async def _start_again(self) -> None:
        """Lose all that is in memory, and go on as another process."""
        chance = random.Random(f"process {next(self._processes)}")
        self._db.new_id = IdSource(self._db.clock.now, chance.getrandbits)
        await self._db.restart()
        await self._start()

    async def _start(self) -> None:
        """Do what a service does before it works, and what recovery does while it begins to."""
        flow = ConversationFlow(COACH, self._model)
        self._working = Working(self._db, [flow], generator=self._model)
        recovery = manager(self._db, ConversationFlowRecovery(COACH))
        reports = await recovery.repair()
        await self._db.store.recovery.restart_doubts()
        reports += await recovery.recover_components()
        self.repaired += [report.name for report in reports for _ in range(report.restored + report.failed)]


def shown(content: Content) -> str:
    """Return what a phone shows of a message: choices are buttons."""
    labels = [f"[{choice.label}]" for choice in content.choices] if isinstance(content, Choices) else []
    return " ".join([content.body, *labels])
