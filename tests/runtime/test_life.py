"""Three weeks of one participant's life, to the second: nothing of it is different because processes crash.

The times are those that the conversation has unless somebody sets others: a prompt 10 minutes before the time that was
chosen, feedback 5 minutes after it, asked for after 15 minutes and 3 hours later, a reminder after 5 hours.
"""

from __future__ import annotations

from datetime import date, time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from promptpipe.flows.conversation import script
from promptpipe.flows.tone.guide import ALWAYS, BY_DEFAULT, RULES
from tests.support.conversing import TEXTS
from tests.support.database import PostgresTestDatabase
from tests.support.life import Crash, Life
from tests.support.screenplay import ENROLL, OPERATOR, PERSON, SERVICE, Screenplay, differences, on
from tests.support.steady_model import SteadyModel, wish

if TYPE_CHECKING:
    from tests.support.database import Database
    from tests.support.screenplay import Line

PROFILE = {"habit_domain": "stretch", "motivational_frame": "my back", "prompt_anchor": "after coffee"}
REMINDER = script.reminder(PROFILE)
POLL = f"{script.INTENSITY_QUESTION} [Easier] [As they are] [Harder]"

# ---------------------------------------------------------------- by the script

TORONTO = "America/Toronto"
toronto = partial(on, TORONTO)

ASK_HABIT, ASK_REASON, ASK_TIME, ASK_ANCHOR = script.INTAKE.values()
ASK_BARRIER, ASK_MOTIVATOR, ASK_TWEAK = script.FEEDBACK.values()


def scripted(intensity: str) -> str:
    """Return the script's prompt, as hard as it is to be."""
    return f"{script.habit_prompt({**PROFILE, 'intensity': intensity})} [Done] [Not now]"


def told(hour: str) -> list[tuple[str, str, str]]:
    """Return the answers to the three questions of feedback, from the first minute of *hour* on."""
    return [
        (f"{hour}:01", PERSON, "noise"),
        (f"{hour}:01", SERVICE, ASK_MOTIVATOR),
        (f"{hour}:02", PERSON, "music"),
        (f"{hour}:02", SERVICE, ASK_TWEAK),
        (f"{hour}:03", PERSON, "earlier"),
        (f"{hour}:03", SERVICE, script.FEEDBACK_GIVEN),
    ]


def silence(*days: str) -> list[Line]:
    """Return days on each of which nobody answers the prompt of 02:30."""
    lines = (
        ("02:30", SERVICE, scripted("high")),
        ("02:30", SERVICE, POLL),
        ("02:45", SERVICE, script.ASK_FEEDBACK),
        ("05:45", SERVICE, script.FOLLOW_UP),
        ("07:30", SERVICE, REMINDER),
    )
    return [line for day in days for line in toronto(day, *lines)]


BY_THE_SCRIPT = Screenplay(
    zone=TORONTO,
    until="2026-03-22T00:00",
    lines=[
        *toronto(
            "2026-03-01",
            ("07:00", OPERATOR, ENROLL),
            ("07:00", SERVICE, script.greeting("Ada")),
            ("07:00", SERVICE, ASK_HABIT),
            ("07:01", PERSON, "stretch"),
            ("07:01", SERVICE, ASK_REASON),
            ("07:02", PERSON, "my back"),
            ("07:02", SERVICE, ASK_TIME),
            ("07:03", PERSON, "18:30"),
            ("07:03", SERVICE, script.will_prompt(time(18, 30), TORONTO)),
            ("07:03", SERVICE, ASK_ANCHOR),
            ("07:04", PERSON, "after coffee"),
            ("07:04", SERVICE, script.PROFILE_COMPLETE),
            ("07:04", SERVICE, scripted("normal")),
            # Followed at once: no reminder. Feedback is asked for, and asked for once more.
            ("07:06", PERSON, "[Done]"),
            ("07:06", SERVICE, script.well_done(1)),
            ("07:19", SERVICE, script.ASK_FEEDBACK),
            ("10:19", SERVICE, script.FOLLOW_UP),
            # The time they chose is still to come today. Nobody answers.
            ("18:20", SERVICE, scripted("normal")),
            ("18:20", SERVICE, POLL),
            ("18:35", SERVICE, script.ASK_FEEDBACK),
            ("21:35", SERVICE, script.FOLLOW_UP),
            ("23:20", SERVICE, REMINDER),
        ),
        *toronto(
            "2026-03-02",
            ("09:00", PERSON, "hard day"),
            ("09:00", SERVICE, script.THANKS),
            ("09:00", SERVICE, ASK_BARRIER),
            *told("09"),
            # Five minutes after the prompt, and not a second before, what they say is feedback: nobody asks for any.
            ("18:20", SERVICE, scripted("normal")),
            ("18:20", SERVICE, POLL),
            ("18:24:59", PERSON, "[Harder]"),
            ("18:24:59", SERVICE, script.INTENSITY_SET["high"]),
            ("18:25:01", PERSON, "done"),
            ("18:25:01", SERVICE, script.well_done(2)),
            ("18:25:01", SERVICE, ASK_BARRIER),
        ),
        *toronto(
            "2026-03-03",
            ("18:20", SERVICE, scripted("high")),
            ("18:20", SERVICE, POLL),
            ("18:35", SERVICE, script.ASK_FEEDBACK),
            # Answered when asked for the first time: there is no second.
            *told("19"),
        ),
        *toronto(
            "2026-03-04",
            ("18:20", SERVICE, scripted("high")),
            ("18:20", SERVICE, POLL),
            # An answer to the prompt, but no feedback yet.
            ("18:21", PERSON, "not today"),
            ("18:21", SERVICE, script.KEEP_GOING),
            ("18:35", SERVICE, script.ASK_FEEDBACK),
            ("21:35", SERVICE, script.FOLLOW_UP),
            ("22:00", PERSON, "sorry"),
            ("22:00", SERVICE, script.THANKS),
            ("22:00", SERVICE, ASK_BARRIER),
            *told("22"),
        ),
        *toronto(
            "2026-03-05",
            ("18:20", SERVICE, scripted("high")),
            ("18:20", SERVICE, POLL),
            ("18:22", PERSON, "time 22:30"),
            ("18:22", SERVICE, script.will_prompt(time(22, 30), TORONTO)),
            ("18:35", SERVICE, script.ASK_FEEDBACK),
            ("21:35", SERVICE, script.FOLLOW_UP),
            # Today's second prompt. The day's poll has been: that it is tomorrow in UTC does not matter.
            ("22:20", SERVICE, scripted("high")),
            ("22:35", SERVICE, script.ASK_FEEDBACK),
        ),
        *toronto(
            "2026-03-06",
            ("01:35", SERVICE, script.FOLLOW_UP),
            ("03:20", SERVICE, REMINDER),
            ("12:00", PERSON, "busy"),
            ("12:00", SERVICE, script.THANKS),
            ("12:00", SERVICE, ASK_BARRIER),
            *told("12"),
            ("12:04", PERSON, "time 02:40"),
            ("12:04", SERVICE, script.will_prompt(time(2, 40), TORONTO)),
        ),
        *silence("2026-03-07"),
        # Clocks jump from 02:00 to 03:00.
        *toronto(
            "2026-03-08",
            ("03:00", SERVICE, scripted("high")),
            ("03:00", SERVICE, POLL),
            ("03:15", SERVICE, script.ASK_FEEDBACK),
            ("06:15", SERVICE, script.FOLLOW_UP),
            ("08:00", SERVICE, REMINDER),
        ),
        *silence("2026-03-09", "2026-03-10"),
        *toronto("2026-03-10", ("12:00", OPERATOR, "pause")),
        *toronto("2026-03-12", ("12:00", PERSON, "anybody there?")),
        *toronto("2026-03-14", ("12:00", OPERATOR, "resume")),
        *silence("2026-03-15", "2026-03-16", "2026-03-17", "2026-03-18"),
        # Withdrawn before they are asked once more, reminded, and prompted tomorrow.
        *toronto(
            "2026-03-19",
            ("02:30", SERVICE, scripted("high")),
            ("02:30", SERVICE, POLL),
            ("02:45", SERVICE, script.ASK_FEEDBACK),
            ("02:50", OPERATOR, "withdraw"),
        ),
        *toronto("2026-03-20", ("10:00", PERSON, "hello?")),
    ],
)

# ---------------------------------------------------------------- with a model

BERLIN = "Europe/Berlin"
berlin = partial(on, BERLIN)

WISHES = {
    "I want to stretch, for my back.": [
        wish(("save_user_profile", {"habit_domain": "stretch", "motivational_frame": "my back"}))
    ],
    "At 2:40 in the night, after coffee.": [
        wish(
            ("save_user_profile", {"preferred_time": "2:40", "prompt_anchor": "after coffee"}),
            ("scheduler", {"action": "create", "type": "fixed", "fixed_time": "02:40"}),
        ),
        wish(("generate_habit_prompt", {"delivery_mode": "immediate"})),
    ],
    "It went well.": [wish(("transition_state", {"target_state": "INTAKE", "delay_minutes": 90}))],
    "Please be brief.": [wish(("save_user_profile", {"tone_tags": ["concise"], "tone_update_source": "explicit"}))],
    "That was all.": [wish(("transition_state", {"target_state": "INTAKE"}))],
}
"""What the model does at which words."""


def answered(
    said: str, module: str, *, sent: int, followed: int, intensity: str = "normal", brief: bool = False
) -> str:
    """Return the model's answer, which repeats what it is told: module, profile, tone guide, and what was said."""
    guide = [RULES["concise"], BY_DEFAULT, ALWAYS] if brief else []
    counts = f"prompts sent: {sent}, followed: {followed}"
    return " / ".join([module, f"intensity: {intensity}", counts, *guide, said])


early = partial(answered, sent=0, followed=0)
first = partial(answered, sent=1, followed=1)
easy = partial(answered, intensity="low")
intake, feedback = TEXTS.intake, TEXTS.feedback


def written(day: str, clock: str) -> tuple[str, str, str]:
    """Return the prompt that the model writes when somebody's clock shows *clock*."""
    text = f"It is {date.fromisoformat(day):%A}, {day} {clock} where this person is. Stretch!"
    return clock, SERVICE, f"{text} [Done] [Not now]"


def quiet(*days: str, again: str = "05:45", reminded: str = "07:30") -> list[Line]:
    """Return days on each of which nobody answers the prompt of 02:30."""
    after = (
        ("02:30", SERVICE, POLL),
        ("02:45", SERVICE, script.ASK_FEEDBACK),
        (again, SERVICE, script.FOLLOW_UP),
        (reminded, SERVICE, REMINDER),
    )
    return [line for day in days for line in berlin(day, written(day, "02:30"), *after)]


WITH_A_MODEL = Screenplay(
    zone=BERLIN,
    until="2026-11-02T00:00",
    lines=[
        *berlin(
            "2026-10-12",
            ("09:00", OPERATOR, ENROLL),
            ("09:00", SERVICE, early("hello", intake)),
            ("09:01", PERSON, "I want to stretch, for my back."),
            ("09:01", SERVICE, early("I want to stretch, for my back.", intake)),
            ("09:02", PERSON, "At 2:40 in the night, after coffee."),
            ("09:02", SERVICE, early("At 2:40 in the night, after coffee.", intake)),
            written("2026-10-12", "09:02"),
            ("09:04", PERSON, "[Done]"),
            ("09:04", SERVICE, first("Done", intake)),
            ("09:17", SERVICE, script.ASK_FEEDBACK),
            ("12:17", SERVICE, script.FOLLOW_UP),
            # The module is to be another in an hour and a half, and not a second before.
            ("12:30", PERSON, "It went well."),
            ("12:30", SERVICE, first("It went well.", feedback)),
            ("13:59:59", PERSON, "and?"),
            ("13:59:59", SERVICE, first("and?", feedback)),
            ("14:00:01", PERSON, "and now?"),
            ("14:00:01", SERVICE, first("and now?", intake)),
        ),
        *berlin(
            "2026-10-13",
            written("2026-10-13", "02:30"),
            ("02:30", SERVICE, POLL),
            ("02:34:59", PERSON, "[Easier]"),
            ("02:34:59", SERVICE, easy("Easier", intake, sent=2, followed=1)),
            ("02:35:01", PERSON, "done"),
            ("02:35:01", SERVICE, easy("done", feedback, sent=2, followed=2)),
            ("09:00", PERSON, "Please be brief."),
            ("09:00", SERVICE, easy("Please be brief.", feedback, sent=2, followed=2)),
            ("09:01", PERSON, "That was all."),
            ("09:01", SERVICE, easy("That was all.", feedback, sent=2, followed=2, brief=True)),
            ("09:02", PERSON, "Thanks."),
            ("09:02", SERVICE, easy("Thanks.", intake, sent=2, followed=2, brief=True)),
        ),
        *quiet("2026-10-14", "2026-10-15"),
        *berlin(
            "2026-10-16",
            written("2026-10-16", "02:30"),
            ("02:30", SERVICE, POLL),
            ("02:45", SERVICE, script.ASK_FEEDBACK),
            ("03:00", PERSON, "It was too early."),
            ("03:00", SERVICE, easy("It was too early.", feedback, sent=5, followed=2, brief=True)),
        ),
        *quiet("2026-10-17"),
        *berlin("2026-10-17", ("12:00", OPERATOR, "pause")),
        *berlin("2026-10-22", ("12:00", OPERATOR, "resume")),
        *quiet("2026-10-23", "2026-10-24"),
        # Clocks go from 03:00 back to 02:00: it is 02:30 twice, and five hours after the first time 06:30.
        *quiet("2026-10-25", again="04:45", reminded="06:30"),
        *quiet("2026-10-26", "2026-10-27", "2026-10-28", "2026-10-29", "2026-10-30"),
        *berlin(
            "2026-10-31",
            written("2026-10-31", "02:30"),
            ("02:30", SERVICE, POLL),
            ("02:45", SERVICE, script.ASK_FEEDBACK),
            ("02:50", OPERATOR, "withdraw"),
        ),
        *berlin("2026-11-01", ("10:00", PERSON, "hello?")),
    ],
)

# ---------------------------------------------------------------- as lived

REPAIRED: dict[Crash, set[str]] = {
    Crash.NEVER: set(),
    Crash.BETWEEN_STEPS: set(),
    Crash.IN_HAND: {"requeue_stale_running_jobs", "release_stale_mailboxes"},
}
"""What there is for recovery to repair. A recipient's outbox that was only claimed needs none."""

whatever_crashes = pytest.mark.parametrize(
    "crash",
    [pytest.param(crash, id=crash.name, marks=[] if crash is Crash.NEVER else pytest.mark.slow) for crash in Crash],
)


async def live(db: Database, screenplay: Screenplay, crash: Crash, model: SteadyModel | None = None) -> None:
    """Let a life be lived, and compare it with what is written.

    On PostgreSQL, where a start costs more, every third opportunity for a crash is used: now the first of three, now
    another.
    """
    every = 3 if isinstance(db, PostgresTestDatabase) else 1
    life = Life(db, screenplay, crash, every=every, model=model)
    await life.live()
    different = differences(screenplay, life.transcript)
    assert not different, f"\n{different}"
    assert set(life.repaired) == REPAIRED[crash]


@whatever_crashes
async def test_life_by_the_script(db: Database, crash: Crash) -> None:
    """Intake, prompts, polls, feedback, reminders, other times, a pause, and no word more at the end."""
    await live(db, BY_THE_SCRIPT, crash)


@whatever_crashes
async def test_life_with_a_model(db: Database, crash: Crash) -> None:
    """Its tools are used once, though it is asked again after a crash; what it is told is what was, to the word."""
    await live(db, WITH_A_MODEL, crash, SteadyModel(WISHES))
