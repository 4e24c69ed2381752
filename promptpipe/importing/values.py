"""Old state data by key: each a text, with JSON inside where it is structured."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

from promptpipe.flows.conversation.profile import FIELDS, MAX_VALUE, OLD_NAMES
from promptpipe.flows.conversation.script import INTENSITIES
from promptpipe.flows.conversation.state import (
    BACKGROUND,
    FEEDBACK_STATE,
    HISTORY,
    HISTORY_LIMIT,
    LAST_HABIT_PROMPT,
    LAST_POLL_DATE,
    LAST_PROMPT_SENT_AT,
    MODULE,
    PENDING,
    POLL,
    PROFILE,
    QUESTION,
    REMINDER_SENT_AT,
    RESPONDED_AT,
    SCHEDULES,
    TRANSITION,
    FeedbackState,
    Module,
    PendingPrompt,
)
from promptpipe.flows.conversation.timers import BY_DATA_KEY
from promptpipe.flows.tone import Tone
from promptpipe.importing.ids import imported_id
from promptpipe.importing.reading import MAX_DIGITS, UnreadableError, as_instant, as_json
from promptpipe.model.errors import CorruptStateError
from promptpipe.model.text import shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from promptpipe.model.participants import Participant

WAITING_FOR_MORE = "waiting_followup"
"""What the old service called waiting for feedback after it had asked; here that is no state of its own."""
ELSEWHERE = {SCHEDULES, *BY_DATA_KEY, "systemPrompt", TRANSITION, POLL, QUESTION}
"""Keys that are read elsewhere, one that nobody read, and those that only the flow here has."""

_COUNTS = ("success_count", "total_prompts")
_TONE = {
    "tags": "tone_tags",
    "scores": "tone_scores",
    "version": "tone_version",
    "last_updated_at": "tone_last_updated_at",
    "update_source": "tone_update_source",
}
_NEVER = "0001-01-01"
"""What a time that was never set begins with."""


def state_data(old: Mapping[str, object], person: Participant) -> tuple[dict[str, object], list[str]]:
    """Return state data as the conversation flow has it, and why parts of it are left out.

    What nobody here knows stays as it is: a text.
    """
    data: dict[str, object] = {}
    problems = []
    for key, value in old.items():
        if key in ELSEWHERE or value is None or value == "":
            continue
        try:
            data[key] = _read(key, value, person)
        except UnreadableError as error:
            problems.append(f"{shortened(key, 100)}: {error}")
    return {key: value for key, value in data.items() if value not in (None, [], {})}, problems


def _read(key: str, value: object, person: Participant) -> object:
    if not isinstance(value, str):
        raise UnreadableError("it is no text")
    return READERS[key](value, person) if key in READERS else value


def _text(value: str, _: Participant) -> str:
    return value


def _module(value: str, _: Participant) -> str:
    try:
        return Module(value).value
    except ValueError:
        raise UnreadableError("it is no part of the conversation that there is") from None


def _feedback_state(value: str, _: Participant) -> str:
    if value == WAITING_FOR_MORE:
        return FeedbackState.WAITING.value
    try:
        return FeedbackState(value).value
    except ValueError:
        raise UnreadableError("it is none that there is") from None


def _at(value: str, _: Participant) -> str:
    return as_instant(value, "it").isoformat()


def _day(value: str, _: Participant) -> str:
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        raise UnreadableError("it is no day") from None


def _history(value: str, _: Participant) -> list[dict[str, object]]:
    """Return the newest turns of the two who talk; instructions to a model are not turns."""
    found = as_json(value, "it")
    turns = found.get("messages") if isinstance(found, dict) else found
    if turns is None:
        return []
    if not isinstance(turns, list):
        raise UnreadableError("it is no list of turns")
    return [_turn(turn) for turn in turns if _talks(turn)][-HISTORY_LIMIT:]


def _talks(turn: Any) -> bool:
    if not isinstance(turn, dict) or not all(isinstance(turn.get(name), str) for name in ("role", "content")):
        raise UnreadableError("it has something that is no turn")
    return turn["role"] in {"user", "assistant"}


def _turn(turn: Mapping[str, Any]) -> dict[str, object]:
    at = as_instant(str(turn.get("timestamp")), "timestamp").isoformat()
    return {"role": turn["role"], "content": turn["content"], "timestamp": at}


def _pending(value: str, person: Participant) -> dict[str, object]:
    found = as_json(value, "it")
    sent_at = found.get("sent_at") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(sent_at, str):
        raise UnreadableError("it does not say when the prompt was sent")
    at, due = as_instant(sent_at, "sent_at"), found.get("reminder_due_at")
    return PendingPrompt(
        message_id=imported_id(at, "prompts", person.id),
        to=person.id,
        sent_at=at,
        reminder_due_at=as_instant(str(due), "reminder_due_at") if due else None,
    ).to_data()


def _profile(value: str, _: Participant) -> dict[str, object]:
    found = as_json(value, "it")
    if not isinstance(found, dict):
        raise UnreadableError("it is no JSON object")
    profile: dict[str, object] = {}
    for name, said in found.items():
        field = OLD_NAMES.get(name, name)
        if field in FIELDS and isinstance(said, str) and said.strip():
            profile.setdefault(field, shortened(said.strip(), MAX_VALUE))
        elif name in _COUNTS and isinstance(said, int) and 0 <= said < 10**MAX_DIGITS:
            profile[name] = int(said)
    intensity = found.get("intensity")
    profile["intensity"] = intensity if intensity in list(INTENSITIES) else "normal"
    tone = _tone(found.get("tone"))
    return profile | ({} if tone is None else {"tone": tone})


def _tone(found: object) -> dict[str, object] | None:
    """Return the tone, whose names have a prefix of their own in old profiles; None when there is none."""
    if not isinstance(found, dict):
        return None
    data = {name: found.get(old, found.get(name)) for name, old in _TONE.items()}
    data = {name: value for name, value in data.items() if value and not str(value).startswith(_NEVER)}
    if not data.keys() & {"tags", "scores"}:
        return None
    at = data.get("last_updated_at")
    if at is not None:
        data["last_updated_at"] = as_instant(str(at), "tone_last_updated_at").isoformat()
    try:
        return Tone.from_data(data).to_data()
    except CorruptStateError as error:
        raise UnreadableError(str(error)) from None


READERS: Mapping[str, Callable[[str, Participant], object]] = {
    MODULE: _module,
    HISTORY: _history,
    BACKGROUND: _text,
    PROFILE: _profile,
    LAST_HABIT_PROMPT: _text,
    LAST_PROMPT_SENT_AT: _at,
    PENDING: _pending,
    REMINDER_SENT_AT: _at,
    RESPONDED_AT: _at,
    LAST_POLL_DATE: _day,
    FEEDBACK_STATE: _feedback_state,
}
