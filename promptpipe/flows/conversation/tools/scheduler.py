"""`scheduler`: the times at which somebody is prompted every day."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING

from promptpipe.flows.conversation.context import known_zone
from promptpipe.flows.conversation.state import SCHEDULES
from promptpipe.flows.conversation.tools.tool import ToolError, one_of, text
from promptpipe.model.chat import Tool
from promptpipe.model.errors import InvalidArgumentError
from promptpipe.model.ids import ScheduleId
from promptpipe.model.prompts import SCHEDULED_PROMPT, ConversationPrompt, prompt_payload
from promptpipe.model.recurrence import Recurrence
from promptpipe.model.schedules import NewSchedule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptpipe.flows.conversation.turn import Turn

FIXED, RANDOM = "fixed", "random"
FIXED_ZONE, RANDOM_ZONE = "America/Toronto", "UTC"
"""Where nobody has said which zone, and the participant has none."""
MAX_SCHEDULES = 10
DAY = timedelta(days=1)
SOME_DAY = date(2000, 1, 1)

_CLOCK = re.compile(r"(\d{1,2})(?:[:.h](\d{2}))?\s*([ap]\.?m\.?)?", re.IGNORECASE)


def clock_time(value: str) -> time | None:
    """Return a time of day written as `7:30`, `07.30`, `19h00`, `7 am` or `7:30 pm`; None when it is none of these."""
    found = _CLOCK.fullmatch(value.strip())
    if found is None or not (found[2] or found[3]):
        return None
    hour, minute = int(found[1]), int(found[2] or 0)
    if found[3]:
        if not 1 <= hour <= 12:  # noqa: PLR2004  hours on the face of a clock
            return None
        hour = hour % 12 + (12 if found[3].lower().startswith("p") else 0)
    return time(hour, minute) if hour < 24 and minute < 60 else None  # noqa: PLR2004


def create(turn: Turn, kind: str, start: time, end: time | None, zone: str) -> Mapping[str, object]:
    """Have the participant prompted every day, and return the entry of the registry.

    Prompts are for *start*, or for a time of chance between *start* and *end*; they go out a little before. Without a
    *zone* it is the participant's, or the default of its *kind*. Raise `ToolError`.
    """
    if len(turn.state.schedules) >= MAX_SCHEDULES:
        raise ToolError(f"there are {MAX_SCHEDULES} schedules already: delete one first")
    zone = zone or known_zone(turn.context.participant) or (FIXED_ZONE if kind == FIXED else RANDOM_ZONE)
    goes_out = (datetime.combine(SOME_DAY, start) - turn.settings.prep_time).time()
    recurrence = Recurrence(minute=goes_out.minute, hour=goes_out.hour, zone=zone)
    try:
        recurrence.check()
    except InvalidArgumentError as error:
        raise ToolError(str(error)) from error
    schedule_id = ScheduleId(turn.context.new_id())
    turn.schedule[schedule_id] = NewSchedule(
        id=schedule_id,
        kind=SCHEDULED_PROMPT,
        recurrence=recurrence,
        payload=prompt_payload(ConversationPrompt()),
        participant_id=turn.person,
        spread=timedelta(0) if end is None else _span(start, end),
    )
    entry: dict[str, object] = {
        "id": schedule_id,
        "type": kind,
        "fixedTime": f"{start:%H:%M}" if end is None else None,
        "randomStartTime": None if end is None else f"{start:%H:%M}",
        "randomEndTime": None if end is None else f"{end:%H:%M}",
        "timezone": zone,
        "createdAt": turn.now.isoformat(),
        "timerID": schedule_id,
    }
    entry = {key: value for key, value in entry.items() if value is not None}
    turn.change(**{SCHEDULES: [*turn.state.schedules, entry]})
    return entry


def delete(turn: Turn, schedule_id: str) -> None:
    """End a schedule; raise `ToolError` when the participant has no such one."""
    left = [entry for entry in turn.state.schedules if entry["id"] != schedule_id]
    if len(left) == len(turn.state.schedules):
        raise ToolError(f"there is no schedule {schedule_id!r}")
    turn.schedule.pop(ScheduleId(schedule_id), None)
    turn.unschedule.append(ScheduleId(schedule_id))
    turn.change(**{SCHEDULES: left or None})


def delete_all(turn: Turn) -> None:
    """End all of the participant's schedules."""
    for entry in turn.state.schedules:
        delete(turn, str(entry["id"]))


def _span(start: time, end: time) -> timedelta:
    """Return the time from *start* to *end*, on the day after if that is earlier in the day."""
    span = datetime.combine(SOME_DAY, end) - datetime.combine(SOME_DAY, start)
    return span if span > timedelta(0) else span + DAY


class Scheduler:
    """`CoachTool`: makes, lists and ends the participant's schedules."""

    tool = Tool(
        name="scheduler",
        description="Set, list or end the times at which this person gets a prompt every day.",
        parameters={
            "type": "object",
            "properties": {
                "action": {"type": "string", "enum": ["create", "list", "delete"]},
                "type": {
                    "type": "string",
                    "enum": [FIXED, RANDOM],
                    "description": "fixed: at one time; random: at some time within a span.",
                },
                "fixed_time": {"type": "string", "description": "HH:MM, of 24 hours."},
                "random_start_time": {"type": "string", "description": "HH:MM, of 24 hours."},
                "random_end_time": {"type": "string", "description": "HH:MM, of 24 hours."},
                "timezone": {"type": "string", "description": "An IANA time zone, if they have named a place."},
                "schedule_id": {"type": "string", "description": "Of the one to delete, from the list."},
            },
            "required": ["action"],
        },
    )

    async def use(self, arguments: Mapping[str, object], turn: Turn) -> Mapping[str, object]:
        """See `CoachTool.use`."""
        match one_of(arguments, "action", "create", "list", "delete"):
            case "create":
                return {"status": "success", "schedule": _create(arguments, turn)}
            case "delete":
                delete(turn, text(arguments, "schedule_id"))
                return {"status": "success"}
        return {"status": "success", "schedules": turn.state.schedules}


def _create(arguments: Mapping[str, object], turn: Turn) -> Mapping[str, object]:
    zone = text(arguments, "timezone")
    if one_of(arguments, "type", FIXED, RANDOM) == FIXED:
        return create(turn, FIXED, _time(arguments, "fixed_time"), None, zone)
    start, end = _time(arguments, "random_start_time"), _time(arguments, "random_end_time")
    if start == end:
        raise ToolError("random_end_time must differ from random_start_time")
    return create(turn, RANDOM, start, end, zone)


def _time(arguments: Mapping[str, object], name: str) -> time:
    found = clock_time(text(arguments, name))
    if found is None:
        raise ToolError(f"{name} must be a time of day, as HH:MM")
    return found
