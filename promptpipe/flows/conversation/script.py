"""What the coach says by itself: all it has to say without a language model, and what is never left to one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.text import shortened

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import time

INTAKE = {
    "habit_domain": "Which habit would you like to build? For example: drink water, stretch, read a page.",
    "motivational_frame": "Why does it matter to you?",
    "preferred_time": "When in the day would it suit you best? For example: 7:30, or in the evening.",
    "prompt_anchor": (
        "What do you do at that time every day anyway, so that we can tie it to that?"
        " For example: after I brush my teeth."
    ),
}
"""The profile's fields that the intake asks for, in order, each with its question."""

FEEDBACK = {
    "last_barrier": "What got in the way, if anything did?",
    "last_motivator": "And what helped?",
    "last_tweak": "What should I change about the next prompt?",
}
"""The profile's fields that feedback asks for, in order, each with its question."""

IN_WORDS = "I can only read text so far. Could you put it in words?"
PROFILE_COMPLETE = "Thank you, that is all I need to begin. Here is your first prompt."
ANOTHER_PROMPT = "Here is another one."
KEEP_GOING = (
    "Thank you for telling me. Small steps count, and tomorrow is another chance."
    " Write *prompt* when you want to try again, or *time 18:30* to be prompted at another time."
)
THANKS = "Thank you for telling me."
FEEDBACK_GIVEN = "Thank you, that helps me to make the next prompt a better one."
FALLBACK = "I am sorry, I cannot think of an answer right now. Could you write to me again in a little while?"

DONE, NOT_NOW = "Done", "Not now"
"""What a prompt's poll offers."""
INTENSITY_QUESTION = "How hard may the next prompts be?"
INTENSITIES = {"low": "Easier", "normal": "As they are", "high": "Harder"}
"""What the poll about intensity offers, by level."""
INTENSITY_SET = {
    "low": "All right, I will go easier on you.",
    "normal": "All right, we go on as we do.",
    "high": "All right, there will be a little more to do.",
}

ASK_FEEDBACK = "How did it go with the last prompt? A few words help me to make the next one fit."
FOLLOW_UP = "I would still like to know how the last prompt went. Even one word helps."

ENOUGH_OF_A_VALUE = 200
"""Characters of an answer that are repeated in a prompt."""
PRECISE = {"low": "half a minute", "normal": "one minute", "high": "two minutes"}


def greeting(name: str | None) -> str:
    """Return the first words to someone new."""
    return (
        f"Hello{f' {name}' if name else ''}! I am your habit coach. Together we make one small thing a habit."
        " First a few questions."
    )


def will_prompt(at: time, zone: str) -> str:
    """Return the promise to prompt somebody every day."""
    return f"I will write to you every day around {at:%H:%M} ({zone})."


def habit_prompt(profile: Mapping[str, object]) -> str:
    """Return a prompt for a profile; what is missing in it is left out."""
    anchor, habit, reason = (
        shortened(str(profile.get(field) or ""), ENOUGH_OF_A_VALUE)
        for field in ("prompt_anchor", "habit_domain", "motivational_frame")
    )
    span = PRECISE.get(str(profile.get("intensity")), PRECISE["normal"])
    prompt = f"{anchor or 'Now'}: take {span} for this: {habit or 'your habit'}."
    return f"{prompt} You wanted it because: {reason}. {REPLY_DONE}" if reason else f"{prompt} {REPLY_DONE}"


REPLY_DONE = "Reply *done* when you did."


def reminder(profile: Mapping[str, object]) -> str:
    """Return the reminder that follows an unanswered prompt."""
    habit = shortened(str(profile.get("habit_domain") or "your habit"), ENOUGH_OF_A_VALUE)
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


def wants_time(text: str) -> str | None:
    """Return the time in an answer that asks to be prompted at another; None when it does not."""
    word, _, rest = text.strip(" .!*").partition(" ")
    return rest.strip() if word.casefold() == "time" and rest.strip() else None
