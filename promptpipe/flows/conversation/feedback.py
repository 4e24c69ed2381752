"""The clocks of feedback: how a prompt went is asked some time after it, and once more if nobody answers."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from promptpipe.flows.conversation import script
from promptpipe.flows.conversation.state import FEEDBACK_STATE, MODULE, QUESTION, TRANSITION, FeedbackState, Module
from promptpipe.flows.conversation.timers import AUTO_FEEDBACK, FEEDBACK_FOLLOWUP, FEEDBACK_TIMEOUT, STATE_TRANSITION

if TYPE_CHECKING:
    from promptpipe.flows.conversation.turn import Turn
    from promptpipe.model.events import TimerFired

NEWER_PROMPT = timedelta(minutes=4, seconds=30)
"""A prompt that was sent so recently is not the one whose feedback is due: its own will come."""


def move(turn: Turn, target: Module) -> None:
    """Let another module answer from now on; whatever transition was to come is not."""
    turn.stop(AUTO_FEEDBACK)
    if turn.state.transition is not None:
        turn.stop(STATE_TRANSITION)
    turn.change(**{MODULE: target.value, TRANSITION: None, QUESTION: None})


def enforce(turn: Turn, event: TimerFired) -> None:
    """Go over to feedback, unless that is so, or another prompt has been sent since."""
    turn.fired(AUTO_FEEDBACK, event.job_id)
    sent_at = turn.state.last_prompt_sent_at
    if turn.state.module is Module.FEEDBACK or (sent_at is not None and turn.now - sent_at < NEWER_PROMPT):
        return
    move(turn, Module.FEEDBACK)


def transit(turn: Turn, event: TimerFired) -> None:
    """Make a transition whose time has come, unless that is where the conversation is."""
    turn.fired(STATE_TRANSITION, event.job_id)
    transition = turn.state.transition
    if transition is None:
        return
    turn.change(**{TRANSITION: None})
    if transition.target is not turn.state.module:
        move(turn, transition.target)


def ask(turn: Turn, event: TimerFired) -> None:
    """Ask how it went, if nobody has said so yet, and mean to ask once more."""
    turn.fired(FEEDBACK_TIMEOUT, event.job_id)
    if turn.state.feedback is not FeedbackState.WAITING:
        return
    turn.answer(script.ASK_FEEDBACK)
    if turn.settings.feedback_followup_delay:
        turn.start(FEEDBACK_FOLLOWUP, turn.now + turn.settings.feedback_followup_delay)


def follow_up(turn: Turn, event: TimerFired) -> None:
    """Ask once more, unless feedback was given."""
    turn.fired(FEEDBACK_FOLLOWUP, event.job_id)
    if turn.state.feedback in {None, FeedbackState.COMPLETED}:
        return
    turn.answer(script.FOLLOW_UP)
    turn.change(**{FEEDBACK_STATE: FeedbackState.FOLLOWED_UP.value})


def answered(turn: Turn) -> None:
    """Note that somebody has said how it went: they are not asked any more.

    In feedback, whatever they say is that; before it, what they say once they have been asked.
    """
    was_asked = turn.state.timer(FEEDBACK_FOLLOWUP) is not None or turn.state.feedback is FeedbackState.FOLLOWED_UP
    if turn.state.module is Module.FEEDBACK or was_asked:
        turn.stop(FEEDBACK_TIMEOUT, FEEDBACK_FOLLOWUP)
        if turn.state.feedback is not None:
            turn.change(**{FEEDBACK_STATE: FeedbackState.COMPLETED.value})
