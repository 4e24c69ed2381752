"""What can be set of the conversation."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

HISTORY_SENT = 30
"""Turns that a language model is given, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What a language model is told to be, as one answers in a module, and as it writes a habit prompt."""

    intake: str = ""
    feedback: str = ""
    habit_prompt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationSettings:
    """How long the flow waits, and what its language model is given.

    A timer after 0 is off; a greatest age of 0 is none. *history_limit* is how many of the last turns a model gets:
    -1 for as many as it ever does, 0 for none. Prompts go out *prep_time* before the time that was chosen for them.
    """

    reminder_delay: timedelta = timedelta(hours=5)
    auto_feedback_delay: timedelta = timedelta(minutes=5)
    feedback_timeout: timedelta = timedelta(minutes=15)
    feedback_followup_delay: timedelta = timedelta(hours=3)
    prep_time: timedelta = timedelta(minutes=10)
    max_reply_age: timedelta = timedelta(hours=24)
    history_limit: int = -1
    texts: Texts = field(default_factory=Texts)

    @property
    def turns_sent(self) -> int:
        """How many of the last turns a language model is given."""
        return HISTORY_SENT if self.history_limit < 0 else min(self.history_limit, HISTORY_SENT)
