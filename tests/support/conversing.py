"""A conversation in progress, without a store: events go to the flow, and what it decides is kept."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from promptpipe.flows.conversation import ConversationFlow, ConversationSettings, script
from promptpipe.flows.conversation.settings import Texts
from promptpipe.flows.flow import FlowContext
from promptpipe.model.decisions import Decision, FlowState
from promptpipe.model.events import MessageSent, Replied, TimerFired
from promptpipe.model.ids import IdSource, JobId, MessageId, ParticipantId, ResponseId
from promptpipe.model.messages import Choices
from promptpipe.model.participants import Participant, ParticipantStatus
from promptpipe.model.prompts import ConversationPrompt, PromptOrder
from tests.support.script import PROFILE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptpipe.model.decisions import Wake
    from promptpipe.model.events import Event
    from promptpipe.model.messages import Content
    from promptpipe.model.schedules import NewSchedule
    from promptpipe.ports.generator import TextGenerator

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PERSON = ParticipantId("person")
TEXTS = Texts(intake="You take in.", feedback="You ask how it went.", habit_prompt="You write prompts.")


class Conversation:
    """Hands events to the flow, and keeps state, timers and schedules as a store would."""

    def __init__(self, generator: TextGenerator | None = None, **settings: Any) -> None:
        self.flow = ConversationFlow(ConversationSettings(texts=TEXTS, **settings), generator)
        self.state = FlowState(
            participant_id=PERSON,
            flow_type="conversation",
            current_state="CONVERSATION_ACTIVE",
            data={},
            version=1,
            created_at=NOW,
            updated_at=NOW,
        )
        self.participant = Participant(
            id=PERSON,
            status=ParticipantStatus.ACTIVE,
            channel="whatsapp",
            addresses=(),
            created_at=NOW,
            updated_at=NOW,
            name="Ada",
        )
        self.now = NOW
        self.timers: dict[str, Wake] = {}
        self.schedules: dict[str, NewSchedule] = {}
        self.new_id = IdSource(lambda: self.now, random.Random(3).getrandbits)

    @property
    def context(self) -> FlowContext:
        return FlowContext(participant=self.participant, now=self.now, new_id=self.new_id)

    @property
    def data(self) -> dict[str, Any]:
        return dict(self.state.data)

    @property
    def profile(self) -> dict[str, Any]:
        return dict(self.data.get("userProfile", {}))

    @property
    def pending(self) -> dict[str, object]:
        return dict(self.data["dailyPromptPending"])

    def edit(self, **changes: object) -> None:
        """Change state data, as somebody with a shell may; None removes a key."""
        data = {key: value for key, value in {**self.data, **changes}.items() if value is not None}
        self.state = replace(self.state, data=data)

    async def handle(self, event: Event) -> Decision:
        return self.keep(await self.flow.handle(event, self.state, self.context))

    def keep(self, decision: Decision) -> Decision:
        """Apply a decision."""
        if decision.state is not None:
            assert (decision.state.from_version, decision.state.flow_type) == (self.state.version, "conversation")
            self.state = replace(self.state, data=decision.state.data, version=self.state.version + 1)
        for key in decision.cancel:
            self.timers.pop(key, None)
        self.timers |= {wake.key: wake for wake in decision.wake}
        for schedule_id in decision.unschedule:
            self.schedules.pop(schedule_id, None)
        self.schedules |= {new.id: new for new in decision.schedule}
        return decision

    async def hear(self, text: str, **other: object) -> list[str]:
        """Let the person say *text* and return what is said to them."""
        values: dict[str, object] = {
            "response_id": ResponseId("r"),
            "channel": "whatsapp",
            "type": "text",
            "text": text,
            "said_at": self.now,
            **other,
        }
        return said(await self.handle(Replied(**values)))  # type: ignore[arg-type]

    async def tap(self, choice: str, message_id: str | None = None) -> list[str]:
        """Let the person tap a choice (of the poll about a prompt, unless it says more), and return what is said."""
        choice_id = choice if message_id is None else f"{message_id}:{choice}"
        return await self.hear(choice.capitalize(), type="interactive", choice_id=choice_id)

    async def take_in(self) -> MessageId:
        """Go through the scripted intake and return the id of the prompt."""
        await self.hear("hi")
        for field in script.INTAKE:
            await self.hear(PROFILE[field])
        return MessageId(str(self.pending["messageId"]))

    async def prompt(self) -> MessageId:
        """Go through the scripted intake, and let the prompt be sent now."""
        return await self.sent(await self.take_in())

    async def order(self, content: Content | None = None, *, scheduled: bool = True) -> list[str]:
        """Have a prompt sent that is due, the conversation's own unless it is given; return what is said."""
        order = PromptOrder(
            prompt=ConversationPrompt(), message_id=MessageId(self.new_id()), scheduled=scheduled, dedupe_key="key"
        )
        return said(self.keep(await self.flow.prompt(order, content, self.state, self.context)))

    async def sent(self, message_id: MessageId) -> MessageId:
        """Let a message reach the provider now."""
        await self.handle(MessageSent(flow_type="conversation", message_id=message_id, sent_at=self.now))
        return message_id

    async def order_and_send(self) -> MessageId:
        """Have the conversation's prompt sent."""
        await self.order()
        return await self.sent(MessageId(str(self.pending["messageId"])))

    def fired(self, kind: str) -> TimerFired:
        """Return the event of the timer of a kind that runs, and let the time come when it is due."""
        [wake] = [wake for wake in self.timers.values() if wake.kind == kind]
        del self.timers[wake.key]
        self.now = max(self.now, wake.at)
        return TimerFired(job_id=wake.id, job_kind=wake.kind, dedupe_key=wake.key, payload=wake.payload)

    async def fire(self, kind: str) -> list[str]:
        """Let the timer of a kind fire when it is due, and return what is said."""
        return said(await self.handle(self.fired(kind)))

    def running(self) -> dict[str, timedelta]:
        """Return the timers that run, by kind, each with what is left of it; the state names each and no other."""
        names = {value: key for key, value in self.data.items() if key.endswith("TimerID")}
        assert set(names) == {wake.id for wake in self.timers.values()}
        return {wake.kind: wake.at - self.now for wake in self.timers.values()}

    async def pass_time(self, **span: float) -> None:
        """Let time pass in which nothing happens."""
        self.now += timedelta(**span)


def said(decision: Decision) -> list[str]:
    return [body_of(say.content) for say in decision.say]


def body_of(content: Content) -> str:
    return content.body


def choices_of(decision: Decision) -> list[Sequence[str]]:
    """Return the choices of each message that has some."""
    contents = [say.content for say in decision.say]
    return [[choice.label for choice in content.choices] for content in contents if isinstance(content, Choices)]


def job(job_id: object) -> JobId:
    return JobId(str(job_id))
