"""What becomes of old rows, page by page: what is to arrive, what is here already, and what cannot be brought over."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from promptpipe.flows.conversation.timers import TIMERS
from promptpipe.flows.conversation.turn import FLOW_TYPE
from promptpipe.importing import rows
from promptpipe.importing.conversations import begun, carried
from promptpipe.importing.people import People
from promptpipe.importing.reading import UnreadableError, text
from promptpipe.importing.tables import HOOKS, JOBS, MARKS, MESSAGES, PARTICIPANTS, RECEIPTS, RESPONSES, STATES
from promptpipe.model.importing import Problem
from promptpipe.model.jobs import JobStatus
from promptpipe.model.participants import e164
from promptpipe.model.text import shortened, storable
from promptpipe.ports.importing import Known

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeVar

    from promptpipe.flows.conversation.settings import ConversationSettings
    from promptpipe.flows.conversation.timers import Timer
    from promptpipe.importing.conversations import Carried
    from promptpipe.importing.people import Person
    from promptpipe.importing.reading import OldRow
    from promptpipe.importing.source import Source
    from promptpipe.importing.tables import Table
    from promptpipe.model.decisions import Hook
    from promptpipe.model.ids import ParticipantId
    from promptpipe.model.importing import Imported, ImportedMessage, ImportedResponse
    from promptpipe.model.jobs import Job
    from promptpipe.model.participants import Participant
    from promptpipe.ports.clock import Clock
    from promptpipe.ports.importing import ImportView

    T = TypeVar("T")


MAX_SAID = 500
"""Characters of a reason, or of a row's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where old rows arrive: on which channel, by which of our numbers, and in a conversation with which settings."""

    channel: str
    number_id: str
    conversation: ConversationSettings


@dataclass(slots=True)
class Sheet:
    """What becomes of some rows of a *table*."""

    table: Table
    rows: list[Imported] = field(default_factory=list)
    imported: int = 0
    skipped: int = 0
    problems: list[Problem] = field(default_factory=list)

    def bring(self, *arriving: Imported) -> None:
        """Count a row as imported, which is to arrive as these."""
        self.imported += 1
        self.rows += arriving

    def leave(self, row: OldRow, *reasons: str) -> None:
        """Note why a row, or parts of it, cannot be imported."""
        name = row.get(self.table.key) or "(without an id)"
        self.problems += [Problem(_bounded(name), _bounded(reason)) for reason in reasons]

    def read(self, old: Sequence[OldRow], function: Callable[[OldRow], T | None]) -> list[tuple[OldRow, T]]:
        """Return what *function* makes of rows; None skips one, and an `UnreadableError` is a problem of its."""
        found = []
        for row in old:
            try:
                value = function(row)
            except UnreadableError as error:
                self.leave(row, str(error))
                continue
            if value is None:
                self.skipped += 1
            else:
                found.append((row, value))
        return found


class Planner:
    """Makes sheets. It only reads; the same rows make the same sheet as long as nothing has arrived."""

    def __init__(self, source: Source, store: ImportView, target: Target, clock: Clock) -> None:
        self._source = source
        self._store = store
        self._target = target
        self._clock = clock
        self._people = People(source, store, target.channel)
        self._plans = {
            PARTICIPANTS: self._participants,
            HOOKS: self._hooks,
            JOBS: self._jobs,
            STATES: self._states,
            MESSAGES: self._messages,
            MARKS: self._marks,
            RECEIPTS: self._receipts,
            RESPONSES: self._responses,
        }

    async def sheet(self, table: Table, old: Sequence[OldRow]) -> Sheet:
        """Return what becomes of rows of a table."""
        sheet = Sheet(table)
        await self._plans[table](sheet, old)
        return sheet

    async def _bring_new(self, sheet: Sheet, what: Known, arriving: Mapping[str, Imported]) -> None:
        """Bring what is not here yet, by its ids."""
        known = await self._store.known(what, arriving)
        sheet.skipped += len(known)
        for name, row in arriving.items():
            if name not in known:
                sheet.bring(row)

    async def _participants(self, sheet: Sheet, old: Sequence[OldRow]) -> None:
        people = await self._people.by_ids(_values(old, "id"))

        def arriving(row: OldRow) -> Person | None:
            person = _found(people, row["id"], "id")
            return None if _present(person) is None else person

        read = [person for _, person in sheet.read(old, arriving)]
        ids = [person.participant.id for person in read if person.participant is not None]
        known = await self._store.known(Known.PARTICIPANTS, ids)
        for participant, conversing in ((person.participant, person.conversing) for person in read):
            if participant is None or participant.id in known:
                sheet.skipped += 1
            else:
                sheet.bring(participant, *([] if conversing else begun(participant)))

    async def _hooks(self, sheet: Sheet, old: Sequence[OldRow]) -> None:
        numbers = {number for row in old if (number := e164(row["phone_number"] or "")) is not None}
        people = await self._people.by_numbers(numbers)

        def arriving(row: OldRow) -> Hook | None:
            person = _found(people, e164(text(row, "phone_number")), "phone_number")
            participant = _present(person)
            if participant is None or person.here:
                return None
            hook = rows.hook_of(row, participant.id)
            return None if hook.expires_at is not None and hook.expires_at <= self._clock.now() else hook

        for _, hook in sheet.read(old, arriving):
            sheet.bring(hook)

    async def _jobs(self, sheet: Sheet, old: Sequence[OldRow]) -> None:
        people = await self._people.by_ids(owner for row in old if (owner := _owner(row)) is not None)

        def arriving(row: OldRow) -> Job | None:
            owner = rows.owner_of_job(row)
            if owner is None:
                return rows.other_job(row)
            return _timer_job(row, _found(people, owner, "payload_json.participant_id"))

        jobs = {job.id: (row, job) for row, job in sheet.read(old, arriving)}
        known = await self._store.known(Known.JOBS, jobs)
        for job_id, (row, job) in jobs.items():
            if job_id not in known and job.last_error == rows.NOT_KNOWN_HERE:
                sheet.leave(row, f"{job.kind} is no kind of job here: it is kept as one that has failed")
        await self._bring_new(sheet, Known.JOBS, {job_id: job for job_id, (_, job) in jobs.items()})

    async def _states(self, sheet: Sheet, old: Sequence[OldRow]) -> None:
        people = await self._people.by_ids(_values(old, "participant_id"))
        live = await self._live_timers(people)

        def arriving(row: OldRow) -> Carried | None:
            if text(row, "flow_type") != FLOW_TYPE:
                raise UnreadableError("flow_type is no flow that is here")
            person = _found(people, text(row, "participant_id"), "participant_id")
            participant = _present(person)
            if participant is None or person.here:
                return None
            timers = live.get(person.old_id, {})
            return carried(row, participant, timers, self._target.conversation, self._clock.now())

        for row, conversation in sheet.read(old, arriving):
            sheet.bring(*conversation.rows)
            sheet.leave(row, *conversation.problems)

    async def _live_timers(self, people: Mapping[str, Person]) -> dict[str, dict[Timer, OldRow]]:
        """Return the jobs that are to come for people's timers, by their old ids."""
        keys = {f"{timer.key_name}:{old_id}": (people[old_id], timer) for old_id in people for timer in TIMERS}
        live: dict[str, dict[Timer, OldRow]] = {}
        for row in await self._source.find(JOBS, {"dedupe_key": sorted(keys), "status": ["queued", "running"]}):
            person, timer = keys[row["dedupe_key"] or ""]
            if _readable(partial(_timer_job, row, person)) is not None:
                live.setdefault(person.old_id, {})[timer] = row
        return live

    async def _messages(self, sheet: Sheet, old: Sequence[OldRow]) -> None:
        people = await self._people.by_ids(_values(old, "participant_id"))
        now = self._clock.now()

        def arriving(row: OldRow) -> ImportedMessage | None:
            participant = _present(_found(people, text(row, "participant_id"), "participant_id"))
            return None if participant is None else rows.message_of(row, participant, now)

        read = [imported for _, imported in sheet.read(old, arriving)]
        await self._bring_new(sheet, Known.MESSAGES, {imported.message.id: imported for imported in read})

    async def _marks(self, sheet: Sheet, old: Sequence[OldRow]) -> None:
        read = sheet.read(old, lambda row: rows.mark_of(row, self._target.channel, self._target.number_id))
        await self._bring_new(sheet, Known.MARKS, {mark.provider_id: mark for _, mark in read})

    async def _receipts(self, sheet: Sheet, old: Sequence[OldRow]) -> None:
        read = sheet.read(old, lambda row: rows.receipt_of(row, self._target.channel))
        await self._bring_new(sheet, Known.RECEIPTS, {imported.receipt.id: imported for _, imported in read})

    async def _responses(self, sheet: Sheet, old: Sequence[OldRow]) -> None:
        numbers = {sender for row in old if (sender := _readable(partial(rows.sender_of, row))) is not None}
        people = await self._people.by_numbers(numbers)
        owners: dict[str, ParticipantId] = dict(await self._people.owners(numbers))
        owners |= {number: one.participant.id for number, one in people.items() if one.participant is not None}

        def arriving(row: OldRow) -> ImportedResponse | None:
            sender = rows.sender_of(row)
            if sender in people and people[sender].erased:
                return None
            return rows.response_of(row, owners.get(sender), self._target.channel, self._target.number_id)

        read = [imported for _, imported in sheet.read(old, arriving)]
        await self._bring_new(sheet, Known.RESPONSES, {imported.response.id: imported for imported in read})


def _bounded(said: str) -> str:
    return shortened(storable(said), MAX_SAID)


def _values(old: Sequence[OldRow], name: str) -> list[str]:
    return [value for row in old if (value := row[name])]


def _found(people: Mapping[str, Person], name: str | None, column: str) -> Person:
    if name is None or name not in people:
        raise UnreadableError(f"{column} is no participant's")
    return people[name]


def _present(person: Person) -> Participant | None:
    """Return a participant who is imported; None for one who was erased here. Raise `UnreadableError` for any other."""
    if person.erased:
        return None
    if person.missing is not None:
        raise UnreadableError(person.missing)
    return person.participant


def _timer_job(row: OldRow, person: Person) -> Job | None:
    """Return a participant's timer; None when it is not to come any more, for their conversation is here."""
    participant = _present(person)
    if participant is None:
        return None
    job = rows.timer_job(row, person.old_id, participant.id)
    if job.status is JobStatus.QUEUED and not person.conversing:
        raise UnreadableError(f"{person.old_id} has no conversation that it could belong to")
    return None if job.status is JobStatus.QUEUED and person.here else job


def _owner(row: OldRow) -> str | None:
    return _readable(partial(rows.owner_of_job, row))


def _readable(function: Callable[[], T]) -> T | None:
    try:
        return function()
    except UnreadableError:
        return None
