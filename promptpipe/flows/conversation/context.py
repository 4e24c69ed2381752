"""What a language model is told of the participant, beside what was said."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from promptpipe.flows.conversation.profile import FIELDS, missing
from promptpipe.flows.conversation.state import BACKGROUND, LAST_HABIT_PROMPT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from promptpipe.flows.conversation.turn import Turn
    from promptpipe.model.participants import Participant


def background_of(person: Participant) -> str:
    """Return what is known of somebody from elsewhere, as the state keeps it; empty when nothing is."""
    known = {
        "Name": person.name,
        "Gender": person.gender,
        "Ethnicity": person.ethnicity,
        "Background": person.background,
    }
    return "\n".join(f"{name}: {value}" for name, value in known.items() if value)


def known_zone(person: Participant) -> str | None:
    """Return the name of the participant's zone; None when they have none, or one that does not exist."""
    try:
        return ZoneInfo(person.timezone).key if person.timezone else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def local_time(turn: Turn) -> datetime:
    """Return what the participant's clock shows; that of UTC when their zone is not known."""
    return turn.now.astimezone(ZoneInfo(known_zone(turn.context.participant) or "UTC"))


def context_of(turn: Turn) -> str:
    """Return the profile, what is missing in it, and where things stand."""
    return "\n".join(_lines(turn))


def _lines(turn: Turn) -> Iterator[str]:
    state, local = turn.state, local_time(turn)
    yield f"It is {local:%A, %Y-%m-%d %H:%M} where this person is."
    background = state.data.get(BACKGROUND)
    if background:
        yield f"About this person:\n{background}"
    known = {name: state.profile[name] for name in FIELDS if state.profile.get(name)}
    yield "Their profile:" if known else "Their profile is empty so far."
    yield from (f"- {name}: {value}" for name, value in known.items())
    yield f"- intensity: {state.profile.get('intensity', 'normal')}"
    yield f"- prompts sent: {state.count('total_prompts')}, followed: {state.count('success_count')}"
    lacking = missing(state)
    yield f"Still missing: {', '.join(lacking)}" if lacking else "Nothing that prompts need is missing."
    if state.data.get(LAST_HABIT_PROMPT):
        yield f"The latest prompt: {state.data[LAST_HABIT_PROMPT]}"
    if state.pending is not None:
        yield "They have not answered it yet."
    if state.schedules:
        yield "They are prompted every day:"
        yield from (f"- {_described(entry)}" for entry in state.schedules)


def _described(entry: Mapping[str, object]) -> str:
    span = f"{entry.get('randomStartTime')} to {entry.get('randomEndTime')}"
    return f"{entry.get('fixedTime') or span} {entry.get('timezone')} (schedule {entry['id']})"
