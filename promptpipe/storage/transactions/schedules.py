"""Schedules: their rows, and the commit in which due ones make their jobs.

They are locked after flow states and before jobs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import TYPE_CHECKING

from promptpipe.model.errors import InvalidArgumentError, NotFoundError, PreconditionError
from promptpipe.model.ids import JobId, ParticipantId, ScheduleId
from promptpipe.model.leases import Work
from promptpipe.model.recurrence import Recurrence
from promptpipe.model.retry import DEFAULT_MAX_ATTEMPTS
from promptpipe.model.schedules import Fired, Misfire, Schedule, expiry, made_by, put_off, settle
from promptpipe.storage.transactions import mailbox_events
from promptpipe.storage.transactions.pages import page
from promptpipe.storage.transactions.values import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from promptpipe.model.listing import Page, PageRequest
    from promptpipe.model.schedules import NewSchedule, ScheduleEdit
    from promptpipe.storage.transactions.transaction import Database, Row, Transaction


class ScheduleTransactions:
    """`ports.schedules.ScheduleStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, new: NewSchedule) -> Schedule:
        """See `ScheduleStore.create`."""
        return await self._database.write(partial(create, new=new))

    async def get(self, schedule_id: ScheduleId) -> Schedule:
        """See `ScheduleStore.get`."""
        return await self._database.read(partial(_get, schedule_id=schedule_id))

    async def list(self, participant_id: ParticipantId | None, page: PageRequest) -> Page[Schedule]:
        """See `ScheduleStore.list`."""
        return await self._database.read(partial(_list, participant_id=participant_id, request=page))

    async def update(self, schedule_id: ScheduleId, version: int, edit: ScheduleEdit) -> Schedule:
        """See `ScheduleStore.update`."""
        return await self._database.write(partial(_update, schedule_id=schedule_id, version=version, edit=edit))

    async def pause(self, schedule_id: ScheduleId) -> Schedule:
        """See `ScheduleStore.pause`."""
        return await self._database.write(partial(_pause, schedule_id=schedule_id))

    async def resume(self, schedule_id: ScheduleId) -> Schedule:
        """See `ScheduleStore.resume`."""
        return await self._database.write(partial(_resume, schedule_id=schedule_id))

    async def delete(self, schedule_id: ScheduleId) -> bool:
        """See `ScheduleStore.delete`."""
        return await self._database.write(partial(_delete, schedule_id=schedule_id))

    async def fire(self, limit: int) -> Fired:
        """See `ScheduleStore.fire`."""
        return await self._database.write(partial(_fire, limit=limit))


async def create(tx: Transaction, new: NewSchedule) -> Schedule:
    """See `ScheduleStore.create`."""
    await tx.run(
        "insert_schedule",
        id=new.id,
        kind=new.kind,
        queue=new.queue,
        priority=new.priority,
        payload=to_json(new.payload),
        participant_id=new.participant_id,
        misfire=new.misfire.value,
        spread=new.spread,
        next_at=new.recurrence.next_after(await tx.now()),
        **asdict(new.recurrence),
    )
    tx.wake(Work.SCHEDULE)
    return await _get(tx, new.id)


async def _get(tx: Transaction, schedule_id: ScheduleId) -> Schedule:
    return _as_schedule(await _row(tx, "schedule", schedule_id))


async def _row(tx: Transaction, statement: str, schedule_id: ScheduleId) -> Row:
    row = await tx.one(statement, id=schedule_id)
    if row is None:
        raise NotFoundError("schedule", schedule_id)
    return row


async def _list(tx: Transaction, participant_id: ParticipantId | None, request: PageRequest) -> Page[Schedule]:
    if participant_id is None:
        return await page(tx, "list_schedules", request, _as_schedule)
    return await page(tx, "list_schedules_of", request, _as_schedule, participant_id=participant_id)


async def _update(tx: Transaction, schedule_id: ScheduleId, version: int, edit: ScheduleEdit) -> Schedule:
    now = _as_schedule(await _held_row(tx, schedule_id))
    is_that = (now.recurrence, now.payload, now.misfire, now.spread) == (
        edit.recurrence,
        edit.payload,
        edit.misfire,
        edit.spread,
    )
    if now.version == version + 1 and is_that:
        return now  # the call is repeated
    if now.version != version:
        raise PreconditionError(f"the schedule {schedule_id} was edited: its version is {now.version}")
    next_at = now.next_at
    if not now.paused and edit.recurrence != now.recurrence:
        next_at = await _next(tx, edit.recurrence, now.last_at)
    await tx.run(
        "edit_schedule",
        id=schedule_id,
        payload=to_json(edit.payload),
        misfire=edit.misfire.value,
        spread=edit.spread,
        next_at=next_at,
        **asdict(edit.recurrence),
    )
    await _take_back(tx, schedule_id, now.participant_id)
    tx.wake(Work.SCHEDULE)
    return await _get(tx, schedule_id)


async def _pause(tx: Transaction, schedule_id: ScheduleId) -> Schedule:
    row = await _held_row(tx, schedule_id)
    await tx.run("pause_schedules", ids=[schedule_id])
    await _take_back(tx, schedule_id, row["participant_id"])
    return await _get(tx, schedule_id)


async def _delete(tx: Transaction, schedule_id: ScheduleId) -> bool:
    try:
        row = await _held_row(tx, schedule_id)
    except NotFoundError:
        return False
    await tx.run("delete_schedule", id=schedule_id)
    await _take_back(tx, schedule_id, row["participant_id"])
    return True


async def end(tx: Transaction, schedule_id: ScheduleId, participant_id: ParticipantId) -> None:
    """End a schedule, if it is one of the participant whose mailbox the caller holds."""
    row = await tx.one("schedule_to_change", id=schedule_id)
    if row is not None and row["participant_id"] == participant_id:
        await tx.run("delete_schedule", id=schedule_id)
        await _take_back(tx, schedule_id, participant_id)


async def _held_row(tx: Transaction, schedule_id: ScheduleId) -> Row:
    """Return a schedule's row to be changed, its participant's mailbox locked before; raise `NotFoundError`."""
    owner = (await _row(tx, "schedule", schedule_id))["participant_id"]
    if owner is not None:
        await tx.lock_lanes([(Work.MAILBOX, owner)])
    return await _row(tx, "schedule_to_change", schedule_id)


async def _take_back(tx: Transaction, schedule_id: ScheduleId, participant_id: ParticipantId | None) -> None:
    """End what a participant's schedule has made and nobody has handled; a decision about it is void from now on."""
    if participant_id is None:
        return
    whose = {"participant_id": participant_id, "prefix": made_by(schedule_id)}
    jobs, events = await tx.several(("live_jobs_of_schedule", whose), ("waiting_events_of_schedule", whose))
    if jobs:
        await tx.run("cancel_jobs", ids=[row["id"] for row in jobs])
    await mailbox_events.remove(tx, [row["id"] for row in events])


async def _resume(tx: Transaction, schedule_id: ScheduleId) -> Schedule:
    now = _as_schedule(await _row(tx, "schedule_to_change", schedule_id))
    if not now.paused:
        return now
    await tx.run("resume_schedule", id=schedule_id, next_at=await _next(tx, now.recurrence, now.last_at))
    tx.wake(Work.SCHEDULE)
    return await _get(tx, schedule_id)


async def _next(tx: Transaction, recurrence: Recurrence, last_at: datetime | None) -> datetime | None:
    """Return the next time: after *last_at*, for which a job was made, whatever became of the clock meanwhile."""
    now = await tx.now()
    return recurrence.next_after(now if last_at is None else max(now, last_at))


@dataclass(frozen=True, slots=True)
class _Move:
    """From a time that is due (None: missing) on to the next one, with or without a job for the *last* until now."""

    row: Row
    last: datetime | None
    next: datetime | None

    @property
    def run_at(self) -> datetime:
        """When the job for the last time is due."""
        assert self.last is not None  # noqa: S101  asked of those alone that make a job
        return self.last + put_off(self.row["id"], self.last, self.row["spread"])


async def _fire(tx: Transaction, limit: int) -> Fired:
    due = await tx.all("due_schedules", limit=limit)
    unreadable: tuple[ScheduleId, ...] = ()
    jobs = 0
    if due:
        active = await _active(tx, due)
        now = await tx.now()
        moves, unreadable = _settled(due, now, active)
        moved = await _move(tx, moves)
        jobs = await _make_jobs(tx, [move for move in moves if move.last is not None and move.row["id"] in moved], now)
        await _set_aside(tx, unreadable)
    return Fired(jobs=jobs, next_due_in=0.0 if len(due) == limit else await _next_due_in(tx), unreadable=unreadable)


async def _active(tx: Transaction, due: Sequence[Row]) -> set[str | None]:
    """Return those of whom something is due who are active; nobody is among them, for what is nobody's."""
    people = {row["participant_id"] for row in due} - {None}
    active = await tx.all("active_among", participant_ids=sorted(people)) if people else []
    return {None, *(row["id"] for row in active)}


def _settled(due: Sequence[Row], now: datetime, active: set[str | None]) -> tuple[list[_Move], tuple[ScheduleId, ...]]:
    """Return what becomes of due schedules, and the ids of those that cannot be read."""
    moves, unreadable = [], []
    known: dict[tuple[Recurrence, str, datetime], tuple[datetime | None, datetime | None]] = {}
    for row in due:
        recurrence = _as_recurrence(row)
        what = (recurrence, row["misfire"], row["next_at"])
        try:
            if what not in known:  # many share a rule
                known[what] = settle(recurrence, Misfire(row["misfire"]), row["next_at"], now)
        except (InvalidArgumentError, ValueError):
            unreadable.append(ScheduleId(row["id"]))
        else:
            last, following = known[what]
            moves.append(_Move(row, last if row["participant_id"] in active else None, following))
    return moves, tuple(unreadable)


async def _move(tx: Transaction, moves: Sequence[_Move]) -> set[str]:
    """Move those schedules on that nobody has changed, and return their ids."""
    moved = await tx.all(
        "move_schedules",
        ids=[move.row["id"] for move in moves],
        versions=[move.row["version"] for move in moves],
        occurrences=[move.row["next_at"] for move in moves],
        next=[move.next for move in moves],
        last=[move.last for move in moves],
    )
    return {row["id"] for row in moved}


async def _make_jobs(tx: Transaction, moves: Sequence[_Move], now: datetime) -> int:
    """Make the jobs of *moves*, each with the schedule's id, version and time in its payload; return how many."""
    if not moves:
        return 0
    tx.wake(Work.JOB)
    run_at = [move.run_at for move in moves]
    expires = [expiry(at, now, move.next) for at, move in zip(run_at, moves, strict=True)]
    return await tx.count(
        "insert_scheduled_jobs",
        ids=[move.row["id"] for move in moves],
        job_ids=[JobId(tx.ids()) for _ in moves],
        occurrences=[_occurrence(move.last) for move in moves if move.last is not None],
        run_at=run_at,
        expires=[at.isoformat() for at in expires],
        max_attempts=DEFAULT_MAX_ATTEMPTS,
    )


async def _set_aside(tx: Transaction, unreadable: Sequence[ScheduleId]) -> None:
    if unreadable:
        await tx.run("pause_schedules", ids=list(unreadable))


async def _next_due_in(tx: Transaction) -> float | None:
    row = await tx.the("next_schedule")
    return None if row["due_in"] is None else row["due_in"].total_seconds()


async def repair(tx: Transaction, limit: int) -> list[ScheduleId]:
    """See `RecoveryStore.repair_schedules`."""
    stray = await tx.all("stray_schedules", limit=limit)
    moves, unreadable = [], []
    for row in stray:
        try:
            following = await _next(tx, _as_recurrence(row), row["last_at"])
        except InvalidArgumentError:
            following = None
        if following is None:
            unreadable.append(ScheduleId(row["id"]))
        else:
            moves.append(_Move(row, None, following))
    if moves:
        await _move(tx, moves)
        tx.wake(Work.SCHEDULE)
    await _set_aside(tx, unreadable)
    return [ScheduleId(row["id"]) for row in stray]


def _occurrence(instant: datetime) -> str:
    """Return one of a schedule's times as keys and payloads have it."""
    return f"{instant:%Y-%m-%dT%H:%M}Z"


def _as_recurrence(row: Row) -> Recurrence:
    return Recurrence(**{field.name: row[field.name] for field in fields(Recurrence)})


def _as_schedule(row: Row) -> Schedule:
    return Schedule(
        id=ScheduleId(row["id"]),
        version=row["version"],
        kind=row["kind"],
        queue=row["queue"],
        priority=row["priority"],
        payload=from_json(row["payload"]),
        recurrence=_as_recurrence(row),
        misfire=Misfire(row["misfire"]),
        paused=bool(row["paused"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        participant_id=None if row["participant_id"] is None else ParticipantId(row["participant_id"]),
        next_at=row["next_at"],
        last_at=row["last_at"],
        spread=row["spread"],
    )
