"""The conversation's state data, with names for its keys and checks for its shapes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from promptpipe.model.errors import CorruptStateError

if TYPE_CHECKING:
    from collections.abc import Mapping

HISTORY = "conversationHistory"
PROFILE = "userProfile"
LAST_HABIT_PROMPT = "lastHabitPrompt"
LAST_PROMPT_SENT_AT = "lastPromptSentAt"
PENDING = "dailyPromptPending"
REMINDER_TIMER = "dailyPromptReminderTimerID"
REMINDER_SENT_AT = "dailyPromptReminderSentAt"
RESPONDED_AT = "dailyPromptRespondedAt"

HISTORY_LIMIT = 50
"""Turns kept; the oldest go first."""


@dataclass(frozen=True, slots=True)
class PendingPrompt:
    """A prompt that waits for an answer. *sent_at* is None until it has reached the provider."""

    message_id: str
    to: str
    sent_at: datetime | None = None
    reminder_due_at: datetime | None = None

    def to_data(self) -> dict[str, object]:
        """Return it as state data."""
        return {
            "messageId": self.message_id,
            "to": self.to,
            "sentAt": None if self.sent_at is None else self.sent_at.isoformat(),
            "reminderDueAt": None if self.reminder_due_at is None else self.reminder_due_at.isoformat(),
        }


@dataclass(frozen=True, slots=True)
class ConversationState:
    """State data. An absent key means unset; setting a key to None removes it."""

    data: Mapping[str, object]

    def having(self, **changes: object) -> ConversationState:
        """Return the state with *changes*, by key."""
        merged = {**self.data, **changes}
        return ConversationState({key: value for key, value in merged.items() if value is not None})

    @property
    def history(self) -> list[object]:
        """The turns so far, oldest first, as {role, content, timestamp}."""
        turns = self.data.get(HISTORY, [])
        if not isinstance(turns, list):
            raise CorruptStateError(f"{HISTORY} is not a list")
        return turns

    def heard(self, text: str, at: datetime) -> ConversationState:
        """Return the state with something the participant said."""
        return self._with_turn("user", text, at)

    def said(self, text: str, at: datetime) -> ConversationState:
        """Return the state with something we said."""
        return self._with_turn("assistant", text, at)

    def _with_turn(self, role: str, text: str, at: datetime) -> ConversationState:
        turn = {"role": role, "content": text, "timestamp": at.isoformat()}
        return self.having(**{HISTORY: [*self.history, turn][-HISTORY_LIMIT:]})

    @property
    def profile(self) -> Mapping[str, object]:
        """What is known of the participant, by field."""
        profile = self.data.get(PROFILE, {})
        if not isinstance(profile, dict):
            raise CorruptStateError(f"{PROFILE} is not an object")
        return profile

    def with_profile(self, **fields: object) -> ConversationState:
        """Return the state with *fields* of the profile set; a new profile has a normal intensity."""
        return self.having(**{PROFILE: {"intensity": "normal", **self.profile, **fields}})

    def count(self, field: str) -> int:
        """Return a counter of the profile; one never counted is 0."""
        value = self.profile.get(field, 0)
        if not isinstance(value, int):
            raise CorruptStateError(f"{PROFILE}.{field} is not a number")
        return value

    @property
    def pending(self) -> PendingPrompt | None:
        """The prompt that waits for an answer."""
        data = self.data.get(PENDING)
        if data is None:
            return None
        try:
            return _pending_from(data)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CorruptStateError(f"{PENDING} is malformed: {error}") from error

    @property
    def reminder_timer(self) -> str | None:
        """The id of the reminder's job."""
        timer = self.data.get(REMINDER_TIMER)
        return None if timer is None else str(timer)


def _pending_from(data: object) -> PendingPrompt:
    if not isinstance(data, dict):
        raise TypeError("not an object")
    sent_at, due_at = data.get("sentAt"), data.get("reminderDueAt")
    return PendingPrompt(
        message_id=str(data["messageId"]),
        to=str(data["to"]),
        sent_at=None if sent_at is None else datetime.fromisoformat(sent_at),
        reminder_due_at=None if due_at is None else datetime.fromisoformat(due_at),
    )
