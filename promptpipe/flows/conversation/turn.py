"""One event's handling: the decision as it takes shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from promptpipe.model.decisions import Decision, Say, StateChange, Wake
from promptpipe.model.ids import JobId, MessageId
from promptpipe.model.messages import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from promptpipe.flows.conversation.settings import ConversationSettings
    from promptpipe.flows.conversation.state import ConversationState
    from promptpipe.flows.conversation.timers import Timer
    from promptpipe.flows.flow import FlowContext
    from promptpipe.model.decisions import FlowState
    from promptpipe.model.ids import ParticipantId, ScheduleId
    from promptpipe.model.messages import Content
    from promptpipe.model.schedules import NewSchedule

FLOW_TYPE = "conversation"


@dataclass(slots=True)
class Turn:
    """The state so far, and what else is to change."""

    state: ConversationState
    context: FlowContext
    settings: ConversationSettings
    say: list[Say] = field(default_factory=list)
    wake: dict[str, Wake] = field(default_factory=dict)
    cancel: dict[str, None] = field(default_factory=dict)
    schedule: dict[ScheduleId, NewSchedule] = field(default_factory=dict)
    unschedule: list[ScheduleId] = field(default_factory=list)
    after_answer: Callable[[], None] | None = None
    """What is to be said after the answer that is being made."""

    @property
    def now(self) -> datetime:
        """When this happens."""
        return self.context.now

    @property
    def person(self) -> ParticipantId:
        """To whom."""
        return self.context.participant.id

    def decision(self, before: FlowState) -> Decision:
        """Return what came of the turn."""
        changed = self.state.data != before.data
        return Decision(
            state=StateChange(FLOW_TYPE, before.current_state, self.state.data, before.version) if changed else None,
            say=tuple(self.say),
            wake=tuple(self.wake.values()),
            cancel=tuple(self.cancel),
            schedule=tuple(self.schedule.values()),
            unschedule=tuple(self.unschedule),
        )

    def change(self, **changes: object) -> None:
        """Change state data, by key; None removes one."""
        self.state = self.state.having(**changes)

    def answer(self, content: str | Content) -> None:
        """Say something, and note it in the history."""
        told = Text(content) if isinstance(content, str) else content
        self.say.append(Say(id=self.new_message_id(), content=told))
        self.note(told)

    def finish(self) -> None:
        """Say what is to be said after the answer."""
        if self.after_answer is not None:
            self.after_answer()
            self.after_answer = None

    def new_message_id(self) -> MessageId:
        """Return the id of a message that is yet to be said."""
        return MessageId(self.context.new_id())

    def note(self, content: Content) -> None:
        """Note in the history what is said; choices are left out, a language model would only repeat them."""
        self.state = self.state.said(content.body, self.now)

    def start(self, timer: Timer, at: datetime, payload: Mapping[str, object] | None = None) -> None:
        """Start a timer, in place of one of its kind."""
        job_id, key = JobId(self.context.new_id()), timer.key(self.person)
        self.wake[key] = Wake(id=job_id, kind=timer.kind, key=key, at=at, payload=payload or {})
        self.change(**{timer.data_key: job_id})

    def stop(self, *timers: Timer) -> None:
        """Stop timers, if they run."""
        for timer in timers:
            if self.state.timer(timer) is not None:
                key = timer.key(self.person)
                self.wake.pop(key, None)
                self.cancel[key] = None
                self.change(**{timer.data_key: None})

    def fired(self, timer: Timer, job_id: str) -> None:
        """Note that a timer's job has fired, unless it is another's turn already."""
        if self.state.timer(timer) == job_id:
            self.change(**{timer.data_key: None})
