"""The participant's profile: how what a language model has learned is merged into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.flows.tone import Tone, UpdateSource
from promptpipe.model.text import shortened, storable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from promptpipe.flows.conversation.state import ConversationState

FIELDS = {
    "prompt_anchor": "What they do every day anyway, to which the habit is tied.",
    "preferred_time": "When in the day they want to be prompted, in their own words.",
    "habit_domain": "The habit, in a few words.",
    "motivational_frame": "Why it matters to them.",
    "additional_info": "Anything else that makes prompts better.",
    "last_successful_prompt": "The latest prompt that worked for them.",
    "last_barrier": "What got in the way the last time.",
    "last_motivator": "What helped the last time.",
    "last_tweak": "What is to be different the next time.",
}
"""What is learned of somebody, each with what it means."""

OLD_NAMES = {"last_blocker": "last_barrier"}
NEEDED = ("habit_domain", "motivational_frame", "preferred_time", "prompt_anchor")
"""Fields without which the intake is not complete, in the order in which they are asked for."""
MAX_VALUE = 1000
"""Characters of a field."""


def merged(state: ConversationState, values: Mapping[str, object]) -> ConversationState:
    """Return the state with those fields of the profile changed whose values are there and different."""
    given = {OLD_NAMES.get(name, name): value for name, value in values.items()}
    changes = {
        name: shortened(storable(value.strip()), MAX_VALUE)
        for name, value in given.items()
        if name in FIELDS and isinstance(value, str) and value.strip()
    }
    changes = {name: value for name, value in changes.items() if value != state.profile.get(name)}
    return state.with_profile(**changes) if changes else state


def toned(
    state: ConversationState, tags: object, source: UpdateSource, now: datetime, confidence: float
) -> ConversationState:
    """Return the state with the tone as it is after a model proposed *tags*."""
    before = Tone.from_data(state.profile.get("tone"))
    after = before.updated(tags, source, now, confidence)
    return state if after is before else state.with_profile(tone=after.to_data())


def tone_of(state: ConversationState) -> Tone:
    """Return the participant's tone."""
    return Tone.from_data(state.profile.get("tone"))


def missing(state: ConversationState) -> list[str]:
    """Return the fields that the intake still has to ask for, in their order."""
    return [name for name in NEEDED if not state.profile.get(name)]
