"""Bringing in what another database holds, page by page."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from promptpipe.model.decisions import FlowState, Hook
from promptpipe.model.ids import ParticipantId
from promptpipe.model.importing import (
    ImportedMessage,
    ImportedReceipt,
    ImportedResponse,
    InboundMark,
    Problem,
    TableProgress,
)
from promptpipe.model.jobs import Job, JobStatus
from promptpipe.model.leases import Work
from promptpipe.model.messages import AttemptState, MessageStatus, content_data, content_kind
from promptpipe.model.participants import Participant
from promptpipe.model.retry import DEFAULT_MAX_ATTEMPTS
from promptpipe.model.schedules import NewSchedule
from promptpipe.ports.importing import Known
from promptpipe.storage.transactions import lanes, messages, participants, schedules
from promptpipe.storage.transactions.values import span, to_json

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from promptpipe.model.importing import Imported, ImportPage
    from promptpipe.storage.transactions.transaction import Database, Row, Transaction

ALIVE_SECONDS = 15.0
"""An instance that gave its last sign of life longer ago is taken for dead."""

LIVE = {JobStatus.QUEUED, JobStatus.RUNNING}
ATTEMPTED = {
    MessageStatus.IN_DOUBT: AttemptState.IN_DOUBT,
    MessageStatus.SENT: AttemptState.SENT,
    MessageStatus.FAILED: AttemptState.FAILED,
}
"""What is known of the last attempt at a message by its status; of others nothing has to be."""


LOOKED_FOR = {
    Known.PARTICIPANTS: "known_participants",
    Known.CONVERSATIONS: "known_conversations",
    Known.JOBS: "known_jobs",
    Known.MESSAGES: "known_messages",
    Known.MARKS: "known_marks",
    Known.RECEIPTS: "known_receipts",
    Known.RESPONSES: "known_responses",
    Known.ERASED: "known_tombstones",
}
"""The statements that find what is known."""


class _OvertakenError(Exception):
    """Something that the page rests on is no longer so."""


class ImportTransactions:
    """`ports.importing.ImportStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def in_use(self) -> bool:
        """See `ImportStore.in_use`."""
        return await self._database.read(_in_use)

    async def owners(self, channel: str, numbers: Collection[str]) -> Mapping[str, ParticipantId]:
        """See `ImportView.owners`."""
        return await self._database.read(partial(_owners, channel=channel, numbers=numbers))

    async def known(self, what: Known, ids: Collection[str]) -> frozenset[str]:
        """See `ImportView.known`."""
        return await self._database.read(partial(_known, statement=LOOKED_FOR[what], ids=ids))

    async def progress(self, source: str) -> Mapping[str, TableProgress]:
        """See `ImportStore.progress`."""
        return await self._database.read(partial(_progress, source=source))

    async def begin(self, source: str, place: str, tables: Sequence[str]) -> None:
        """See `ImportStore.begin`."""
        await self._database.write(partial(_begin, source=source, place=place, tables=tables))

    async def unfinished(self) -> Sequence[str]:
        """See `ImportStore.unfinished`."""
        rows = await self._database.read(lambda tx: tx.all("unfinished_imports"))
        return [row["place"] for row in rows]

    async def give_up(self) -> None:
        """See `ImportStore.give_up`."""
        await self._database.write(lambda tx: tx.run("give_up_imports"))

    async def apply(self, page: ImportPage) -> bool:
        """See `ImportStore.apply`."""
        try:
            await self._database.write(partial(_apply, page=page))
        except _OvertakenError:
            return False
        return True


async def _in_use(tx: Transaction) -> bool:
    return await tx.one("living_instance", since=span(ALIVE_SECONDS)) is not None


async def _owners(tx: Transaction, channel: str, numbers: Collection[str]) -> Mapping[str, ParticipantId]:
    wanted = to_json([{"channel": channel, "address": number} for number in numbers])
    rows = await tx.all("owners_of_addresses", addresses=wanted)
    return {row["address"]: ParticipantId(row["participant_id"]) for row in rows}


async def _known(tx: Transaction, statement: str, ids: Collection[str]) -> frozenset[str]:
    return frozenset(row["id"] for row in await tx.all(statement, ids=list(ids)))


async def _begin(tx: Transaction, source: str, place: str, tables: Sequence[str]) -> None:
    await tx.lock_names([f"import/{source}"])
    await tx.run("forget_import", place=place)
    for name in tables:
        await tx.run("begin_import", source=source, place=place, name=name)


async def _progress(tx: Transaction, source: str) -> Mapping[str, TableProgress]:
    return {row["name"]: _as_progress(row) for row in await tx.all("import_progress", source=source)}


def _as_progress(row: Row) -> TableProgress:
    return TableProgress(
        table=row["name"],
        position=row["position"],
        finished=bool(row["finished"]),
        read=row["rows_read"],
        imported=row["imported"],
        skipped=row["skipped"],
        problems=row["problems"],
        listed=tuple(Problem(row=item["row"], reason=item["reason"]) for item in json.loads(row["listed"])),
    )


async def _apply(tx: Transaction, page: ImportPage) -> None:
    await tx.lock_names([f"import/{page.source}"])
    await _move(tx, page)
    await _insert_messages(tx, [row for row in page.rows if isinstance(row, ImportedMessage)])
    for row in page.rows:
        if not isinstance(row, ImportedMessage):
            await _insert(tx, row)


async def _move(tx: Transaction, page: ImportPage) -> None:
    """Take the table's progress on; raise `_OvertakenError` when it is not where it is to be taken from."""
    if (await _progress(tx, page.source)).get(page.before.table) != page.before:
        raise _OvertakenError
    after = page.after
    await tx.run(
        "note_import",
        source=page.source,
        name=after.table,
        position=after.position,
        finished=after.finished,
        rows_read=after.read,
        imported=after.imported,
        skipped=after.skipped,
        problems=after.problems,
        listed=to_json([asdict(problem) for problem in after.listed]),
    )


async def _insert(tx: Transaction, row: Imported) -> None:
    match row:
        case Participant():
            await _insert_participant(tx, row)
        case FlowState():
            await tx.run(
                "import_flow_state",
                participant_id=row.participant_id,
                flow_type=row.flow_type,
                current_state=row.current_state,
                state_data=to_json(row.data),
                created_at=row.created_at,
                updated_at=row.updated_at,
            )
        case Hook():
            await participants.add_hook(tx, row)
        case Job():
            await _insert_job(tx, row)
        case NewSchedule():
            await schedules.create(tx, row)
        case InboundMark():
            await tx.run("import_mark", **asdict(row))
        case ImportedReceipt():
            await _insert_receipt(tx, row)
        case ImportedResponse(response=response, number_id=number_id):
            await tx.run("import_response", number_id=number_id, **asdict(response))
        case ImportedMessage():
            raise TypeError("messages are inserted together")


async def _insert_participant(tx: Transaction, person: Participant) -> None:
    await tx.run(
        "import_participant",
        id=person.id,
        status=person.status.value,
        channel=person.channel,
        name=person.name,
        gender=person.gender,
        ethnicity=person.ethnicity,
        background=person.background,
        timezone=person.timezone,
        created_at=person.created_at,
        updated_at=person.updated_at,
    )
    if await participants.link(tx, person.id, person.addresses) < len(person.addresses):
        raise _OvertakenError


async def _insert_job(tx: Transaction, job: Job) -> None:
    values = {
        "id": job.id,
        "queue": job.queue,
        "priority": job.priority,
        "kind": job.kind,
        "run_at": job.run_at,
        "payload": to_json(job.payload),
        "dedupe_key": job.dedupe_key,
        "participant_id": job.participant_id,
        "max_attempts": job.max_attempts,
        "created_at": job.created_at,
    }
    if job.status in LIVE:
        await tx.run("import_job", **values)
        return
    await tx.run(
        "import_ended_job",
        **values,
        status=job.status.value,
        attempt=job.attempt,
        last_error=job.last_error,
        finished_at=job.finished_at or job.updated_at,
    )


async def _insert_receipt(tx: Transaction, imported: ImportedReceipt) -> None:
    receipt = imported.receipt
    await tx.run(
        "import_receipt",
        id=receipt.id,
        channel=imported.channel,
        provider_message_id=receipt.provider_message_id,
        status=receipt.status.value,
        error=receipt.error,
        provider_time=receipt.provider_time,
        received_at=receipt.received_at,
        raw=imported.raw,
    )


async def _insert_messages(tx: Transaction, imported: Sequence[ImportedMessage]) -> None:
    """Put messages into the outbox; those that are to be sent take places in their lanes, in their order."""
    for item, seq in zip(imported, await _places(tx, imported), strict=True):
        message = item.message
        await tx.run(
            "import_message",
            id=message.id,
            participant_id=message.participant_id,
            channel=message.channel,
            recipient=message.recipient.value,
            recipient_kind=message.recipient.kind.value,
            class_=message.message_class.value,
            lane_key=messages.lane_key(message.participant_id, message.channel, message.message_class),
            seq=seq,
            not_before=item.not_before,
            kind=content_kind(message.content),
            body=to_json(content_data(message.content)),
            status=message.status.value,
            attempts=message.attempts,
            max_attempts=DEFAULT_MAX_ATTEMPTS,
            dedupe_key=message.dedupe_key,
            in_doubt_policy=None if message.in_doubt_policy is None else message.in_doubt_policy.value,
            last_error=messages.bounded(message.last_error),
            created_at=message.created_at,
            updated_at=item.since,
        )
        attempted = ATTEMPTED.get(message.status)
        if attempted is not None:
            await tx.run(
                "import_attempt",
                message_id=message.id,
                n=message.attempts,
                channel=message.channel,
                state=attempted.value,
                error=messages.bounded(message.last_error),
                started_at=item.since,
            )


async def _places(tx: Transaction, imported: Sequence[ImportedMessage]) -> list[int | None]:
    waiting = [
        item.message for item in imported if item.message.status is MessageStatus.QUEUED and item.not_before is None
    ]
    places: dict[str, int] = {}
    for message_class in {message.message_class for message in waiting}:
        those = [message for message in waiting if message.message_class is message_class]
        keys = [messages.lane_key(message.participant_id, message.channel, message_class) for message in those]
        taken = await lanes.append(tx, Work.OUTBOX, keys, message_class.priority)
        places |= zip([message.id for message in those], taken, strict=True)
    return [places.get(item.message.id) for item in imported]
