"""The conversation flow: a scripted intake, a first prompt, and a reminder that a reply cancels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from promptpipe.flows.conversation import script
from promptpipe.flows.conversation.state import (
    LAST_HABIT_PROMPT,
    LAST_PROMPT_SENT_AT,
    PENDING,
    REMINDER_SENT_AT,
    REMINDER_TIMER,
    RESPONDED_AT,
    ConversationState,
    PendingPrompt,
)
from promptpipe.model.decisions import Decision, Say, StateChange, Wake
from promptpipe.model.events import Enrolled, MessageFailed, MessageSent, Replied, TimerFired, TimerLost
from promptpipe.model.ids import JobId, MessageId
from promptpipe.model.messages import Text

if TYPE_CHECKING:
    from datetime import datetime

    from promptpipe.flows.flow import FlowContext
    from promptpipe.model.decisions import FlowState
    from promptpipe.model.events import Event

FLOW_TYPE = "conversation"
ACTIVE = "CONVERSATION_ACTIVE"
REMINDER = "daily_prompt_reminder"
WORDED = frozenset({"text", "button", "interactive"})
"""Types of reply whose text is the person's own answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationSettings:
    """How long the flow waits. A reminder after 0 is off; a greatest age of 0 is none."""

    reminder_delay: timedelta = timedelta(hours=5)
    max_reply_age: timedelta = timedelta(hours=24)


class ConversationFlow:
    """`flows.flow.Flow`: a habit coach."""

    flow_type = FLOW_TYPE
    handler_type = FLOW_TYPE
    initial_state = ACTIVE
    job_kinds = frozenset({REMINDER})

    def __init__(self, settings: ConversationSettings) -> None:
        self._settings = settings

    async def handle(self, event: Event, state: FlowState, context: FlowContext) -> Decision:
        """See `Flow.handle`."""
        turn = _Turn(ConversationState(state.data), context, self._settings)
        match event:
            case Enrolled():
                turn.greet()
            case Replied():
                turn.reply(event)
            case MessageSent():
                turn.prompt_sent(event)
            case MessageFailed():
                turn.prompt_failed(event)
            case TimerFired():
                turn.reminder_due(event)
            case TimerLost():
                turn.timer_lost(event)
        return turn.decision(state)


@dataclass(slots=True)
class _Turn:
    """One event's handling: the decision as it takes shape."""

    state: ConversationState
    context: FlowContext
    settings: ConversationSettings
    say: list[Say] = field(default_factory=list)
    wake: list[Wake] = field(default_factory=list)
    cancel: list[str] = field(default_factory=list)

    def decision(self, before: FlowState) -> Decision:
        """Return what came of the turn."""
        changed = self.state.data != before.data
        return Decision(
            state=StateChange(FLOW_TYPE, before.current_state, self.state.data, before.version) if changed else None,
            say=tuple(self.say),
            wake=tuple(self.wake),
            cancel=tuple(self.cancel),
        )

    # ------------------------------------------------------------------ events

    def greet(self) -> None:
        """Greet, unless the conversation has begun already, and ask the first question."""
        if self.state.history:
            return
        self._answer(script.greeting(self.context.participant.name))
        self._ask()

    def reply(self, event: Replied) -> None:
        """Answer what the participant wrote."""
        if not event.conversational:
            return
        is_first = not self.state.history
        self.state = self.state.heard(event.text, event.said_at)
        self._note_response()
        max_age = self.settings.max_reply_age
        if max_age and self.context.now - event.said_at > max_age:
            return
        if is_first:
            self._answer(script.greeting(self.context.participant.name))
            self._ask()
        elif event.type not in WORDED or not event.text.strip():
            self._answer(script.IN_WORDS)
        elif (missing := script.first_missing(self.state.profile)) is not None:
            self.state = self.state.with_profile(**{missing: event.text.strip()})
            self._ask()
        else:
            self._follow_up(event.text)

    def prompt_sent(self, event: MessageSent) -> None:
        """Start the reminder's clock, if that prompt still waits for an answer."""
        self.state = self.state.having(**{LAST_PROMPT_SENT_AT: event.sent_at.isoformat()})
        self.state = self.state.with_profile(total_prompts=self.state.count("total_prompts") + 1)
        pending = self.state.pending
        if pending is None or pending.message_id != event.message_id:
            return
        delay = self.settings.reminder_delay
        due_at = event.sent_at + delay if delay else None
        self._await_answer(replace(pending, sent_at=event.sent_at, reminder_due_at=due_at))
        if due_at is not None:
            self._start_reminder(due_at, event.sent_at)

    def prompt_failed(self, event: MessageFailed) -> None:
        """Stop waiting for an answer to a prompt that will not arrive."""
        pending = self.state.pending
        if pending is not None and pending.message_id == event.message_id:
            self._stop_waiting()

    def reminder_due(self, event: TimerFired) -> None:
        """Remind, if the prompt for which this timer was started still waits for an answer."""
        if self.state.reminder_timer == event.job_id:
            self.state = self.state.having(**{REMINDER_TIMER: None})
        pending = self.state.pending
        if pending is None or pending.sent_at is None:
            return
        if event.payload.get("sentAt") != pending.sent_at.isoformat():
            return
        self.state = self.state.having(**{PENDING: None, REMINDER_SENT_AT: self.context.now.isoformat()})
        self._answer(script.reminder(self.state.profile))

    def timer_lost(self, event: TimerLost) -> None:
        """Start a lost reminder again with what was left of its time, or forget one that has ended."""
        if event.data_key != REMINDER_TIMER or self.state.reminder_timer != event.job_id:
            return
        self.state = self.state.having(**{REMINDER_TIMER: None})
        pending = self.state.pending
        if event.remaining is not None and pending is not None and pending.sent_at is not None:
            self._start_reminder(self.context.now + timedelta(seconds=event.remaining), pending.sent_at)

    # ------------------------------------------------------------------ steps

    def _answer(self, text: str, *, awaited: bool = False) -> MessageId:
        message_id = MessageId(self.context.new_id())
        self.say.append(Say(id=message_id, content=Text(text), awaited_by=FLOW_TYPE if awaited else None))
        self.state = self.state.said(text, self.context.now)
        return message_id

    def _ask(self) -> None:
        """Ask for what is missing; with nothing missing, send the first prompt."""
        missing = script.first_missing(self.state.profile)
        if missing is not None:
            self._answer(script.INTAKE[missing])
        else:
            self._answer(script.PROFILE_COMPLETE)
            self._prompt()

    def _follow_up(self, text: str) -> None:
        if script.means_done(text):
            times = self.state.count("success_count") + 1
            self.state = self.state.with_profile(success_count=times)
            self._answer(script.well_done(times))
        elif script.wants_prompt(text):
            self._answer(script.ANOTHER_PROMPT)
            self._prompt()
        else:
            self._answer(script.KEEP_GOING)

    def _prompt(self) -> None:
        text = script.habit_prompt(self.state.profile)
        message_id = self._answer(text, awaited=True)
        self.state = self.state.having(**{LAST_HABIT_PROMPT: text})
        self._await_answer(PendingPrompt(message_id, to=self.context.participant.id))

    def _await_answer(self, pending: PendingPrompt) -> None:
        self.state = self.state.having(**{PENDING: pending.to_data()})

    def _note_response(self) -> None:
        """Whatever the participant says after a prompt answers it: no reminder any more."""
        if self.state.pending is not None:
            self._stop_waiting()
            self.state = self.state.having(**{RESPONDED_AT: self.context.now.isoformat()})

    def _stop_waiting(self) -> None:
        self.cancel.append(self._reminder_key)
        self.state = self.state.having(**{PENDING: None, REMINDER_TIMER: None})

    def _start_reminder(self, at: datetime, sent_at: datetime) -> None:
        job_id = JobId(self.context.new_id())
        payload = {"sentAt": sent_at.isoformat()}
        self.wake.append(Wake(id=job_id, kind=REMINDER, key=self._reminder_key, at=at, payload=payload))
        self.state = self.state.having(**{REMINDER_TIMER: job_id})

    @property
    def _reminder_key(self) -> str:
        return f"{REMINDER}:{self.context.participant.id}"
