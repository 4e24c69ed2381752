"""The conversation flow: a habit coach with two modules, intake and feedback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.flows.conversation import feedback, prompts, script, scripted
from promptpipe.flows.conversation.coach import Coach
from promptpipe.flows.conversation.context import background_of
from promptpipe.flows.conversation.lost import restart
from promptpipe.flows.conversation.state import BACKGROUND, ConversationState, Module
from promptpipe.flows.conversation.timers import (
    AUTO_FEEDBACK,
    BY_KIND,
    FEEDBACK_FOLLOWUP,
    FEEDBACK_TIMEOUT,
    REMINDER,
    STATE_TRANSITION,
    TIMERS,
)
from promptpipe.flows.conversation.tools.habit import written
from promptpipe.flows.conversation.tools.scheduler import delete_all
from promptpipe.flows.conversation.turn import FLOW_TYPE, Turn
from promptpipe.model.errors import GenerationError, RefusedError
from promptpipe.model.events import (
    Enrolled,
    FlowMoved,
    FlowReset,
    MessageFailed,
    MessageSent,
    Replied,
    Signal,
    TimerFired,
    TimerLost,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from promptpipe.flows.conversation.settings import ConversationSettings
    from promptpipe.flows.flow import FlowContext
    from promptpipe.model.decisions import Decision, FlowState
    from promptpipe.model.events import Event
    from promptpipe.model.messages import Content
    from promptpipe.model.prompts import PromptOrder
    from promptpipe.ports.generator import TextGenerator

ACTIVE = "CONVERSATION_ACTIVE"

_WHEN_DUE: Mapping[str, Callable[[Turn, TimerFired], None]] = {
    REMINDER.kind: prompts.remind,
    AUTO_FEEDBACK.kind: feedback.enforce,
    STATE_TRANSITION.kind: feedback.transit,
    FEEDBACK_TIMEOUT.kind: feedback.ask,
    FEEDBACK_FOLLOWUP.kind: feedback.follow_up,
}


class ConversationFlow:
    """`flows.flow.PromptingFlow`: a habit coach. Without a *generator* it answers from its script."""

    flow_type = FLOW_TYPE
    handler_type = FLOW_TYPE
    initial_state = ACTIVE
    job_kinds = frozenset(BY_KIND)

    def __init__(self, settings: ConversationSettings, generator: TextGenerator | None = None) -> None:
        self._settings = settings
        self._generator = generator
        self._coach = None if generator is None else Coach(generator)

    async def handle(self, event: Event, state: FlowState, context: FlowContext) -> Decision:
        """See `Flow.handle`."""
        turn = self._turn(state, context)
        match event:
            case Enrolled():
                await self._greet(turn)
            case Replied():
                await self._reply(turn, event)
            case MessageSent():
                prompts.sent(turn, event)
            case MessageFailed():
                prompts.failed(turn, event)
            case TimerFired():
                _WHEN_DUE[event.job_kind](turn, event)
            case TimerLost():
                restart(turn, event)
            case FlowMoved():
                feedback.move(turn, _module(event.target_state))
            case FlowReset():
                await self._reset(turn)
            case Signal():
                raise RefusedError(f"the conversation knows no event {event.name!r}")
        return turn.decision(state)

    async def prompt(
        self, order: PromptOrder, content: Content | None, state: FlowState, context: FlowContext
    ) -> Decision:
        """See `PromptingFlow.prompt`. What the conversation has to say is a habit prompt."""
        turn = self._turn(state, context)
        if content is None:
            prompts.send_habit_prompt(turn, order, await self._habit_prompt(turn))
        else:
            prompts.send_ordered(turn, order, content)
        return turn.decision(state)

    async def answered(
        self, reply: Replied, answer: Content | None, state: FlowState, context: FlowContext
    ) -> Decision:
        """See `PromptingFlow.answered`."""
        turn = self._turn(state, context)
        prompts.heard(turn, reply)
        if answer is not None:
            turn.note(answer)
        return turn.decision(state)

    def _turn(self, state: FlowState, context: FlowContext) -> Turn:
        return Turn(ConversationState(state.data), context, self._settings)

    async def _greet(self, turn: Turn) -> None:
        """Greet, unless the conversation has begun already."""
        if turn.state.history:
            return
        turn.change(**{BACKGROUND: background_of(turn.context.participant) or None})
        if self._coach is None:
            scripted.greet(turn)
        else:
            await self._coach.answer(turn, None)

    async def _reply(self, turn: Turn, reply: Replied) -> None:
        if not reply.conversational:
            return
        is_first = not turn.state.history
        if is_first:
            turn.change(**{BACKGROUND: background_of(turn.context.participant) or None})
        answered = prompts.heard(turn, reply)
        age = self._settings.max_reply_age
        if age and turn.now - reply.said_at > age:
            return
        feedback.answered(turn)
        if self._coach is not None:
            await self._coach.answer(turn, reply.text)
        elif is_first:
            scripted.greet(turn)
        else:
            scripted.answer(turn, reply, answered)

    async def _habit_prompt(self, turn: Turn) -> str:
        """Return a habit prompt, by the model if there is one that answers."""
        if self._generator is not None:
            try:
                return await written(self._generator, turn)
            except GenerationError:
                pass
        return script.habit_prompt(turn.state.profile)

    async def _reset(self, turn: Turn) -> None:
        """Begin again: nothing is remembered, no timer runs, nothing is scheduled."""
        turn.stop(*TIMERS)
        delete_all(turn)
        turn.state = ConversationState({})
        await self._greet(turn)


def _module(target: str) -> Module:
    try:
        return Module(target.strip().upper())
    except ValueError:
        known = ", ".join(module.value for module in Module)
        raise RefusedError(f"the conversation has no state {target!r}; it has: {known}") from None
