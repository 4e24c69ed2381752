"""The conversation that the tests have with the coach, again and again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from promptpipe.flows.conversation import script
from tests.support.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptpipe.simulator.meta_stand_in import MetaStandIn
    from promptpipe.simulator.world import Phone

ZONE = "America/Toronto"
"""Where people are who have said nothing of it."""

IN_HALF_A_DAY = datetime.now(ZoneInfo(ZONE)) + timedelta(hours=12)  # noqa: TID251  no test lasts so long
PROFILE = {
    "habit_domain": "stretch",
    "motivational_frame": "my back",
    "preferred_time": f"{IN_HALF_A_DAY:%H:%M}",
    "prompt_anchor": "after coffee",
}

OPENING = ("person", "hi"), ("service", script.greeting("Ada"))
INTAKE = [
    line for field, question in script.INTAKE.items() for line in (("service", question), ("person", PROFILE[field]))
]
INTAKE.insert(
    INTAKE.index(("person", PROFILE["preferred_time"])) + 1,
    ("service", script.will_prompt(IN_HALF_A_DAY.time(), ZONE)),
)
HABIT_PROMPT = f"{script.habit_prompt(PROFILE)}\n[{script.DONE}] [{script.NOT_NOW}]"
PROMPT = ("service", script.PROFILE_COMPLETE), ("service", HABIT_PROMPT)
REMINDED = ("service", script.reminder(PROFILE)), ("person", "done"), ("service", script.well_done(1))

TRANSCRIPT = [*OPENING, *INTAKE, *PROMPT, *REMINDED]
"""From the first word to the first success, the reminder included."""


def say(stand_in: MetaStandIn, phone: Phone, text: str) -> None:
    """Let someone write *text*."""
    stand_in.say(phone, {"type": "text", "text": {"body": text}}, text)


async def converse(
    stand_in: MetaStandIn,
    phone: Phone,
    lines: Sequence[tuple[str, str]] = TRANSCRIPT,
    *,
    said: int = 0,
    within: float = 30.0,
) -> None:
    """Have the conversation up to the end of *lines*: each is said once everything before it has been heard.

    The first *said* of them have been said or heard already.
    """
    for number, (who, text) in enumerate(lines):
        if who == "person" and number >= said:
            await eventually(lambda n=number: len(phone.bubbles) >= n, within=within)  # type: ignore[misc]
            say(stand_in, phone, text)
    await eventually(lambda: len(phone.bubbles) >= len(lines), within=within)
