"""Timers that the state names though their jobs are gone: when they would have been due, and starting them again."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from promptpipe.flows.conversation.timers import (
    AUTO_FEEDBACK,
    BY_DATA_KEY,
    FEEDBACK_FOLLOWUP,
    FEEDBACK_TIMEOUT,
    REMINDER,
    STATE_TRANSITION,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from promptpipe.flows.conversation.settings import ConversationSettings
    from promptpipe.flows.conversation.state import ConversationState
    from promptpipe.flows.conversation.timers import Timer
    from promptpipe.flows.conversation.turn import Turn
    from promptpipe.model.events import TimerLost


def life_of(
    timer: Timer, state: ConversationState, settings: ConversationSettings
) -> tuple[datetime, timedelta] | None:
    """Return when a timer of this state was started, and for how long; None when nothing says so."""
    if timer is STATE_TRANSITION:
        transition = state.transition
        return None if transition is None else (transition.due_at, timedelta(0))
    sent_at = state.last_prompt_sent_at
    if timer is REMINDER:
        pending = state.pending
        if pending is None or pending.sent_at is None or pending.reminder_due_at is None:
            return None
        return pending.sent_at, pending.reminder_due_at - pending.sent_at
    lives = {
        AUTO_FEEDBACK: settings.auto_feedback_delay,
        FEEDBACK_TIMEOUT: settings.feedback_timeout,
        FEEDBACK_FOLLOWUP: settings.feedback_timeout + settings.feedback_followup_delay,
    }
    return None if sent_at is None else (sent_at, lives[timer])


def restart(turn: Turn, lost: TimerLost) -> None:
    """Start a lost timer again with what was left of its time, or forget one that has ended."""
    timer = BY_DATA_KEY.get(lost.data_key)
    if timer is None or turn.state.timer(timer) != lost.job_id:
        return
    turn.change(**{timer.data_key: None})
    if lost.remaining is not None and life_of(timer, turn.state, turn.settings) is not None:
        turn.start(timer, turn.now + timedelta(seconds=lost.remaining), _payload(timer, turn.state))


def _payload(timer: Timer, state: ConversationState) -> Mapping[str, object]:
    pending = state.pending
    if timer is not REMINDER or pending is None or pending.sent_at is None:
        return {}
    return {"sentAt": pending.sent_at.isoformat()}
