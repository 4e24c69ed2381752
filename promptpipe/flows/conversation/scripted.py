"""Answers without a language model: questions that collect what a model would, and a few words that are understood."""

from __future__ import annotations

from datetime import time
from typing import TYPE_CHECKING

from promptpipe.flows.conversation import feedback, prompts, script
from promptpipe.flows.conversation.profile import merged, missing
from promptpipe.flows.conversation.state import QUESTION, Module
from promptpipe.flows.conversation.tools.scheduler import FIXED, clock_time, create, delete_all

if TYPE_CHECKING:
    from promptpipe.flows.conversation.prompts import Answered
    from promptpipe.flows.conversation.turn import Turn
    from promptpipe.model.events import Replied

TIMES = {
    "morning": time(9),
    "noon": time(12),
    "lunch": time(12),
    "afternoon": time(15),
    "evening": time(19),
    "night": time(21),
}
"""Words for times of day."""


def greet(turn: Turn) -> None:
    """Greet somebody new, and ask the first question."""
    turn.answer(script.greeting(turn.context.participant.name))
    _ask(turn)


def answer(turn: Turn, reply: Replied, answered: Answered | None) -> None:
    """Answer a reply, of which *answered* says what poll it answers."""
    if not reply.worded:
        turn.answer(script.IN_WORDS)
    elif turn.state.module is Module.FEEDBACK:
        _give_feedback(turn, reply.text, answered)
    elif missing(turn.state):
        _learn(turn, reply.text)
    else:
        _follow_up(turn, reply.text, answered)


def _learn(turn: Turn, text: str) -> None:
    """Take an answer to the question of the intake that was asked last."""
    field = missing(turn.state)[0]
    turn.state = merged(turn.state, {field: text})
    if field == "preferred_time":
        _prompt_every_day(turn, _time_in(text) or TIMES["morning"])
    _ask(turn)


def _ask(turn: Turn) -> None:
    """Ask for what is missing; with nothing missing, send the first prompt."""
    lacking = missing(turn.state)
    if lacking:
        turn.answer(script.INTAKE[lacking[0]])
    else:
        turn.answer(script.PROFILE_COMPLETE)
        prompts.send_own(turn, script.habit_prompt(turn.state.profile))


def _follow_up(turn: Turn, text: str, answered: Answered | None) -> None:
    wanted = script.wants_time(text)
    at = None if wanted is None else clock_time(wanted)
    if answered is not None:
        turn.answer(_reaction(turn, answered))
    elif at is not None:
        delete_all(turn)
        turn.state = merged(turn.state, {"preferred_time": f"{at:%H:%M}"})
        _prompt_every_day(turn, at)
    elif script.wants_prompt(text):
        turn.answer(script.ANOTHER_PROMPT)
        prompts.send_own(turn, script.habit_prompt(turn.state.profile))
    else:
        turn.answer(script.KEEP_GOING)


def _reaction(turn: Turn, answered: Answered) -> str:
    if answered is prompts.Answered.INTENSITY:
        return script.INTENSITY_SET[str(turn.state.profile["intensity"])]
    return script.well_done(turn.state.count("success_count"))


def _give_feedback(turn: Turn, text: str, answered: Answered | None) -> None:
    """Ask one question after the other, keep the answers, and go back to the intake's module with the last."""
    questions = list(script.FEEDBACK)
    asked = turn.state.data.get(QUESTION)
    if asked not in questions:
        turn.answer(script.THANKS if answered is None else _reaction(turn, answered))
        _ask_feedback(turn, questions[0])
        return
    turn.state = merged(turn.state, {str(asked): text})
    following = questions[questions.index(str(asked)) + 1 :]
    if following:
        _ask_feedback(turn, following[0])
    else:
        turn.answer(script.FEEDBACK_GIVEN)
        feedback.move(turn, Module.INTAKE)


def _ask_feedback(turn: Turn, field: str) -> None:
    turn.answer(script.FEEDBACK[field])
    turn.change(**{QUESTION: field})


def _prompt_every_day(turn: Turn, at: time) -> None:
    entry = create(turn, FIXED, at, None, "")
    turn.answer(script.will_prompt(at, str(entry["timezone"])))


def _time_in(text: str) -> time | None:
    """Return the time of day that somebody means."""
    words = text.casefold()
    return clock_time(words) or next((at for word, at in TIMES.items() if word in words), None)
