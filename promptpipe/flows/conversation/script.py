"""What the coach says when no language model is configured: fixed words that collect what a model would."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.text import shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

INTAKE = {
    "habit_domain": "Which habit would you like to build? For example: drink water, stretch, read a page.",
    "motivational_frame": "Why does it matter to you?",
    "preferred_time": "When in the day would it suit you best?",
    "prompt_anchor": (
        "What do you do at that time every day anyway, so that we can tie it to that?"
        " For example: after I brush my teeth."
    ),
}
"""The profile's fields that the intake asks for, in order, each with its question."""

IN_WORDS = "I can only read text so far. Could you put it in words?"
PROFILE_COMPLETE = "Thank you, that is all I need to begin. Here is your first prompt."
ANOTHER_PROMPT = "Here is another one."
KEEP_GOING = (
    "Thank you for telling me. Small steps count, and tomorrow is another chance."
    " Write *prompt* when you want to try again."
)
ENOUGH_OF_A_VALUE = 200
"""Characters of an answer that are repeated in a prompt."""


def greeting(name: str | None) -> str:
    """Return the first words to someone new."""
    return (
        f"Hello{f' {name}' if name else ''}! I am your habit coach. Together we make one small thing a habit."
        " First a few questions."
    )


def first_missing(profile: Mapping[str, object]) -> str | None:
    """Return the field that the intake asks for next; None when the profile is complete."""
    return next((field for field in INTAKE if not profile.get(field)), None)


def habit_prompt(profile: Mapping[str, object]) -> str:
    """Return a prompt for a complete profile."""
    anchor, habit, reason = (
        shortened(str(profile[field]), ENOUGH_OF_A_VALUE)
        for field in ("prompt_anchor", "habit_domain", "motivational_frame")
    )
    return f"{anchor}: take one minute for this: {habit}. You wanted it because: {reason}. Reply *done* when you did."


def reminder(profile: Mapping[str, object]) -> str:
    """Return the reminder that follows an unanswered prompt."""
    habit = shortened(str(profile.get("habit_domain", "your habit")), ENOUGH_OF_A_VALUE)
    return (
        f"Just checking in: did you get to it ({habit})? One minute counts."
        " Reply *done*, or tell me what got in the way."
    )


def well_done(times: int) -> str:
    """Return the answer to a success."""
    count = "the first time" if times == 1 else f"{times} times now"
    return f"Well done! That makes it {count}. Write *prompt* when you want the next one."


def means_done(text: str) -> bool:
    """Whether an answer says that the prompt was followed."""
    return text.strip(" .!*").casefold() == "done"


def wants_prompt(text: str) -> bool:
    """Whether an answer asks for another prompt."""
    return text.strip(" .!*").casefold() == "prompt"
