"""A participant's old conversation as a state of ours, with the timers and schedules that go on.

Old state data are texts by key; structured ones are JSON inside the text. Here a timer is a job: the old service had
some as jobs too, others only in memory, whose times follow from the state. What a flow does to start a timer or a
schedule is done here as well: on a turn of the conversation flow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from promptpipe.flows.conversation.flow import ACTIVE
from promptpipe.flows.conversation.lost import life_of
from promptpipe.flows.conversation.state import SCHEDULES, TRANSITION, ConversationState, Module, PendingTransition
from promptpipe.flows.conversation.timers import (
    FEEDBACK_FOLLOWUP,
    FEEDBACK_TIMEOUT,
    REMINDER,
    STATE_TRANSITION,
    TIMERS,
)
from promptpipe.flows.conversation.tools.scheduler import create
from promptpipe.flows.conversation.tools.tool import ToolError
from promptpipe.flows.conversation.turn import FLOW_TYPE, Turn
from promptpipe.flows.flow import FlowContext
from promptpipe.importing.ids import imported_id
from promptpipe.importing.reading import UnreadableError, instant, json_object
from promptpipe.importing.registry import planned, registered
from promptpipe.importing.rows import job_id
from promptpipe.importing.values import WAITING_FOR_MORE, state_data
from promptpipe.model.decisions import FlowState, Hook
from promptpipe.model.errors import CorruptStateError
from promptpipe.model.jobs import DEFAULT_PRIORITY, DEFAULT_QUEUE, Job, JobStatus
from promptpipe.model.retry import DEFAULT_MAX_ATTEMPTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from promptpipe.flows.conversation.settings import ConversationSettings
    from promptpipe.flows.conversation.timers import Timer
    from promptpipe.importing.reading import OldRow
    from promptpipe.model.decisions import Wake
    from promptpipe.model.importing import Imported
    from promptpipe.model.participants import Participant

JOB_PREFIX = "job_"
"""What the ids of old jobs begin with; those of timers in memory do not."""


@dataclass(slots=True)
class Carried:
    """What a conversation becomes, and what of it could not be brought over."""

    rows: list[Imported]
    problems: list[str]


def begun(person: Participant) -> list[Imported]:
    """Return the conversation of somebody of whom there is none, as if they had just been enrolled."""
    return [_fresh(person), _handler(person)]


def _handler(person: Participant) -> Hook:
    """Return what answers them, whatever other handlers they have; recovery would have to make it."""
    return Hook(participant_id=person.id, handler_type=FLOW_TYPE, flow_type=FLOW_TYPE)


def _fresh(person: Participant) -> FlowState:
    return FlowState(
        participant_id=person.id,
        flow_type=FLOW_TYPE,
        current_state=ACTIVE,
        data={},
        version=1,
        created_at=person.created_at,
        updated_at=person.updated_at,
    )


def carried(
    row: OldRow,
    person: Participant,
    live: Mapping[Timer, OldRow],
    settings: ConversationSettings,
    now: datetime,
) -> Carried:
    """Return what the conversation in *row* becomes; *live* are the jobs that were to come for its timers.

    What cannot be read is left out, and the rest goes on: nobody is left without an answer.
    """
    state = _fresh(person)
    problems: list[str] = []
    old: dict[str, object] = {}
    try:
        state = replace(state, created_at=instant(row, "created_at"), updated_at=instant(row, "updated_at"))
        old = json_object(row, "state_data")
    except UnreadableError as error:
        problems.append(f"{error}: the conversation begins anew")
    data, unread = state_data(old, person)
    context = FlowContext(participant=person, now=now, new_id=partial(imported_id, now, "timers", person.id))
    turn = Turn(state=ConversationState(data), context=context, settings=settings)
    problems += [*unread, *_timers(turn, old, live), *_schedules(turn, old, state.created_at)]
    jobs = [_job(wake, person, now) for wake in turn.wake.values()]
    state = replace(state, data=turn.state.data)
    return Carried([state, _handler(person), *turn.schedule.values(), *jobs], problems)


def _timers(turn: Turn, old: Mapping[str, object], live: Mapping[Timer, OldRow]) -> list[str]:
    """Refer to the jobs of timers that have one, start those that were in memory, and return what cannot be."""
    problems = []
    for timer in TIMERS:
        try:
            if timer in live:
                _refer(turn, timer, live[timer])
            elif _in_memory(timer, turn.state, old):
                _start(turn, timer, old)
        except (UnreadableError, CorruptStateError) as error:
            problems.append(f"{timer.data_key}: {error}")
    return problems


def _refer(turn: Turn, timer: Timer, row: OldRow) -> None:
    if timer is STATE_TRANSITION:
        target = json_object(row, "payload_json").get("target_state")
        if target not in [module.value for module in Module]:
            raise UnreadableError("where its job leads is no state that there is")
        transition = PendingTransition(Module(target), instant(row, "run_at"))
        turn.change(**{TRANSITION: transition.to_data()})
    turn.change(**{timer.data_key: job_id(row)})


def _in_memory(timer: Timer, state: ConversationState, old: Mapping[str, object]) -> bool:
    """Whether a timer that has no job was to come; the old service did not clear all references of those that had."""
    reference = old.get(timer.data_key)
    if not isinstance(reference, str) or not reference or reference.startswith(JOB_PREFIX):
        reference = None
    waits_for = old.get("feedbackState")
    if timer is REMINDER:
        return state.pending is not None and state.pending.reminder_due_at is not None
    if timer is FEEDBACK_TIMEOUT:
        return reference is not None and waits_for == "waiting_initial"
    if timer is FEEDBACK_FOLLOWUP:
        return reference is not None and waits_for == WAITING_FOR_MORE
    return reference is not None


def _start(turn: Turn, timer: Timer, old: Mapping[str, object]) -> None:
    life = life_of(timer, turn.state, turn.settings)
    if life is None:
        where = ", or where it leads" if timer is STATE_TRANSITION else ""
        raise UnreadableError(f"nothing says when it is due{where}")
    started_at, ttl = life
    reference = str(old.get(timer.data_key, ""))
    new_id = partial(imported_id, started_at, "timers", turn.person, timer.data_key, reference)
    turn.context = replace(turn.context, new_id=new_id)
    # When the prompt was sent that is reminded of is when its timer was started.
    turn.start(timer, started_at + ttl, {"sentAt": started_at.isoformat()} if timer is REMINDER else {})


def _schedules(turn: Turn, old: Mapping[str, object], created_at: datetime) -> list[str]:
    """Make the schedules that the old registry lists, and return what cannot be."""
    problems = []
    try:
        entries = registered(old.get(SCHEDULES))
    except UnreadableError as error:
        return [f"{SCHEDULES}: {error}"]
    for entry in entries:
        try:
            plan = planned(entry, created_at)
            new_id = partial(imported_id, plan.created_at, SCHEDULES, turn.person, plan.old_id)
            turn.context = replace(turn.context, now=plan.created_at, new_id=new_id)
            create(turn, plan.kind, plan.start, plan.end, plan.zone)
        except (UnreadableError, ToolError) as error:
            problems.append(f"{SCHEDULES}: {entry.get('id', 'one without an id')}: {error}")
    return problems


def _job(wake: Wake, person: Participant, now: datetime) -> Job:
    return Job(
        id=wake.id,
        kind=wake.kind,
        queue=DEFAULT_QUEUE,
        priority=DEFAULT_PRIORITY,
        status=JobStatus.QUEUED,
        run_at=wake.at,
        payload=wake.payload,
        attempt=0,
        max_attempts=DEFAULT_MAX_ATTEMPTS,
        created_at=now,
        updated_at=now,
        dedupe_key=wake.key,
        participant_id=person.id,
    )
