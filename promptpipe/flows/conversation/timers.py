"""The conversation's timers: jobs of the participant, at most one of each kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promptpipe.model.ids import ParticipantId


@dataclass(frozen=True, slots=True)
class Timer:
    """A timer: its kind of job, what its dedupe key begins with, and the key of state data that holds its job's id."""

    kind: str
    key_name: str
    data_key: str

    def key(self, participant_id: ParticipantId) -> str:
        """Return the dedupe key of a participant's."""
        return f"{self.key_name}:{participant_id}"


REMINDER = Timer("daily_prompt_reminder", "daily_prompt_reminder", "dailyPromptReminderTimerID")
AUTO_FEEDBACK = Timer("auto_feedback_enforcement", "auto_feedback", "autoFeedbackTimerID")
STATE_TRANSITION = Timer("state_transition", "state_transition", "stateTransitionTimerID")
FEEDBACK_TIMEOUT = Timer("feedback_timeout", "feedback_timeout", "feedbackTimerID")
FEEDBACK_FOLLOWUP = Timer("feedback_followup", "feedback_followup", "feedbackFollowupTimerID")

TIMERS = (REMINDER, AUTO_FEEDBACK, STATE_TRANSITION, FEEDBACK_TIMEOUT, FEEDBACK_FOLLOWUP)
BY_KIND = {timer.kind: timer for timer in TIMERS}
BY_DATA_KEY = {timer.data_key: timer for timer in TIMERS}
