"""Schedules: recurring rules that make jobs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING

from promptpipe.model.jobs import DEFAULT_PRIORITY, DEFAULT_QUEUE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from promptpipe.model.ids import ParticipantId, ScheduleId
    from promptpipe.model.recurrence import Recurrence

MISSED_AFTER = timedelta(minutes=1)
"""A time that is this late, and more, was missed."""

LONGEST_LIFE = timedelta(hours=12)
"""For which what a schedule does makes sense, if its next time does not come first."""

MINUTE = timedelta(minutes=1)


class Misfire(Enum):
    """What becomes of times that were missed: once as soon as possible, however many they were, or nothing."""

    RUN = "run"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSchedule:
    """A schedule to create, and the kind, queue, priority and payload of the jobs it is to make.

    One with a *participant_id* makes none while they are not active; they are that person's timers. Otherwise what its
    jobs do is up to the handler of their kind. Each job is put off by a chance part of *spread*, whole minutes.
    """

    id: ScheduleId
    kind: str
    recurrence: Recurrence
    payload: Mapping[str, object] = field(default_factory=dict)
    queue: str = DEFAULT_QUEUE
    priority: int = DEFAULT_PRIORITY
    participant_id: ParticipantId | None = None
    misfire: Misfire = Misfire.RUN
    spread: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule as the store holds it.

    *version* counts its edits, from 1. *next_at* is None while it is paused; *last_at* is the last of its times for
    which it made a job.
    """

    id: ScheduleId
    version: int
    kind: str
    queue: str
    priority: int
    payload: Mapping[str, object]
    recurrence: Recurrence
    misfire: Misfire
    paused: bool
    created_at: datetime
    updated_at: datetime
    participant_id: ParticipantId | None = None
    next_at: datetime | None = None
    last_at: datetime | None = None
    spread: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleEdit:
    """What a schedule is to be from now on."""

    recurrence: Recurrence
    payload: Mapping[str, object]
    misfire: Misfire
    spread: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """What came of due schedules: how many jobs, and the seconds until more is due (None: nothing in sight).

    *unreadable* have a rule that this program cannot read (any more), and were paused.
    """

    jobs: int
    next_due_in: float | None
    unreadable: tuple[ScheduleId, ...] = ()


def made_by(schedule_id: ScheduleId) -> str:
    """Return what the dedupe keys of a schedule's jobs begin with; the occurrence follows."""
    return f"schedule:{schedule_id}:"


def settle(
    recurrence: Recurrence, misfire: Misfire, occurrence: datetime, now: datetime
) -> tuple[datetime | None, datetime | None]:
    """Return the time for which a schedule that is due for *occurrence* makes a job now, if any, and its next time.

    Of several times that have passed, only the last counts; under `SKIP` it does not, either, when it was missed.
    """
    last = recurrence.last_until(now, since=occurrence)
    missed = now - last > MISSED_AFTER
    return None if missed and misfire is Misfire.SKIP else last, recurrence.next_after(now)


def expiry(run_at: datetime, now: datetime, following: datetime | None) -> datetime:
    """Return when what a schedule does no longer makes sense.

    Something missed lives from *now*, when it is made up for; *following* is the schedule's next time.
    """
    longest = max(run_at, now) + LONGEST_LIFE
    return longest if following is None else min(longest, max(following, run_at + MINUTE))


def put_off(schedule_id: ScheduleId, occurrence: datetime, spread: timedelta) -> timedelta:
    """Return by how much one of a schedule's times is put off: by chance, but always the same for the same time."""
    digest = hashlib.sha256(f"{schedule_id}:{occurrence.isoformat()}".encode()).digest()
    return int.from_bytes(digest[:8]) % (spread // MINUTE + 1) * MINUTE
