"""The conversation's state data, with names for its keys and checks for its shapes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum
from typing import TYPE_CHECKING

from promptpipe.flows.conversation.timers import TIMERS
from promptpipe.model.errors import CorruptStateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptpipe.flows.conversation.timers import Timer

MODULE = "conversationState"
HISTORY = "conversationHistory"
BACKGROUND = "participantBackground"
PROFILE = "userProfile"
LAST_HABIT_PROMPT = "lastHabitPrompt"
LAST_PROMPT_SENT_AT = "lastPromptSentAt"
PENDING = "dailyPromptPending"
REMINDER_SENT_AT = "dailyPromptReminderSentAt"
RESPONDED_AT = "dailyPromptRespondedAt"
LAST_POLL_DATE = "lastIntensityPromptDate"
FEEDBACK_STATE = "feedbackState"
SCHEDULES = "scheduleRegistry"
TRANSITION = "stateTransition"
"""Where a transition that waits for its time leads, and when that is."""
POLL = "promptPoll"
"""The poll of the latest prompt that has one: its message, and whether it was answered with *Done*."""
QUESTION = "scriptQuestion"
"""The field of the profile that the script has asked for last, in feedback."""

SHAPES = {
    MODULE: "string",
    HISTORY: "array",
    BACKGROUND: "string",
    PROFILE: "object",
    LAST_HABIT_PROMPT: "string",
    LAST_PROMPT_SENT_AT: "string",
    PENDING: "object",
    LAST_POLL_DATE: "string",
    FEEDBACK_STATE: "string",
    SCHEDULES: "array",
    TRANSITION: "object",
    POLL: "object",
    **{timer.data_key: "string" for timer in TIMERS},
}
"""The JSON types of what the state has, where it has it."""

HISTORY_LIMIT = 50
"""Turns kept; the oldest go first."""


class Module(Enum):
    """Which part of the conversation answers."""

    INTAKE = "INTAKE"
    FEEDBACK = "FEEDBACK"


class FeedbackState(Enum):
    """How far asking for feedback about a prompt has come."""

    WAITING = "waiting_initial"
    FOLLOWED_UP = "followup_sent"
    COMPLETED = "completed"


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
class PendingTransition:
    """A transition that waits for its time."""

    target: Module
    due_at: datetime

    def to_data(self) -> dict[str, object]:
        """Return it as state data."""
        return {"target": self.target.value, "dueAt": self.due_at.isoformat()}


@dataclass(frozen=True, slots=True)
class ConversationState:
    """State data. An absent key means unset; setting a key to None removes it."""

    data: Mapping[str, object]

    def having(self, **changes: object) -> ConversationState:
        """Return the state with *changes*, by key."""
        merged = {**self.data, **changes}
        return ConversationState({key: value for key, value in merged.items() if value is not None})

    @property
    def module(self) -> Module:
        """The part of the conversation that answers."""
        try:
            return Module(self.data.get(MODULE, Module.INTAKE.value))
        except ValueError as error:
            raise CorruptStateError(f"{MODULE} is none that there is") from error

    @property
    def feedback(self) -> FeedbackState | None:
        """How far asking for feedback has come; None where it has not begun."""
        value = self.data.get(FEEDBACK_STATE)
        try:
            return None if value is None else FeedbackState(value)
        except ValueError as error:
            raise CorruptStateError(f"{FEEDBACK_STATE} is none that there is") from error

    @property
    def history(self) -> list[Mapping[str, object]]:
        """The turns so far, oldest first, as {role, content, timestamp}."""
        turns = self.data.get(HISTORY, [])
        if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
            raise CorruptStateError(f"{HISTORY} is not a list of turns")
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
        return self._object(PROFILE)

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
        data = self._object(PENDING)
        if not data:
            return None
        try:
            return PendingPrompt(
                message_id=str(data["messageId"]),
                to=str(data["to"]),
                sent_at=_instant(data.get("sentAt")),
                reminder_due_at=_instant(data.get("reminderDueAt")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptStateError(f"{PENDING} is malformed: {error}") from error

    @property
    def transition(self) -> PendingTransition | None:
        """The transition that waits for its time."""
        data = self._object(TRANSITION)
        if not data:
            return None
        try:
            return PendingTransition(Module(data["target"]), datetime.fromisoformat(str(data["dueAt"])))
        except (KeyError, ValueError) as error:
            raise CorruptStateError(f"{TRANSITION} is malformed: {error}") from error

    @property
    def schedules(self) -> list[Mapping[str, object]]:
        """The participant's schedules, as they are kept."""
        entries = self.data.get(SCHEDULES, [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) and "id" in entry for entry in entries):
            raise CorruptStateError(f"{SCHEDULES} is not a list of schedules")
        return entries

    @property
    def poll(self) -> Mapping[str, object]:
        """The poll of the latest prompt that has one; empty before there is one."""
        return self._object(POLL)

    @property
    def last_prompt_sent_at(self) -> datetime | None:
        """When the latest prompt reached the provider."""
        try:
            return _instant(self.data.get(LAST_PROMPT_SENT_AT))
        except (TypeError, ValueError) as error:
            raise CorruptStateError(f"{LAST_PROMPT_SENT_AT} is no time") from error

    @property
    def last_poll_date(self) -> date | None:
        """The day, where the participant is, on which they were last asked how hard it should be."""
        value = self.data.get(LAST_POLL_DATE)
        try:
            return None if value is None else date.fromisoformat(str(value))
        except ValueError as error:
            raise CorruptStateError(f"{LAST_POLL_DATE} is no day") from error

    def timer(self, timer: Timer) -> str | None:
        """Return the id of a timer's job."""
        job_id = self.data.get(timer.data_key)
        return None if job_id is None else str(job_id)

    def _object(self, key: str) -> Mapping[str, object]:
        value = self.data.get(key, {})
        if not isinstance(value, dict):
            raise CorruptStateError(f"{key} is not an object")
        return value


def _instant(value: object) -> datetime | None:
    """Return an instant; what is kept without a zone is UTC's."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError("a time is text")
    instant = datetime.fromisoformat(value)
    if instant.tzinfo is None:
        raise ValueError("a time has its offset")
    return instant
