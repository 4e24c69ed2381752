"""The rows of mailboxes: appending, taking the heads, setting aside."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from promptpipe.model.events import PromptOrdered, TimerFired, TimerLost, encoded
from promptpipe.model.ids import EventId
from promptpipe.model.leases import Work
from promptpipe.model.retry import DEFAULT_MAX_ATTEMPTS
from promptpipe.model.text import shortened, storable
from promptpipe.storage.transactions import lanes
from promptpipe.storage.transactions.values import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptpipe.model.events import Event
    from promptpipe.model.ids import ParticipantId
    from promptpipe.storage.transactions.transaction import Row, Transaction

MAX_ERROR_TEXT = 2000


async def append(tx: Transaction, events: Sequence[tuple[ParticipantId, Event]]) -> list[EventId]:
    """Put each event at the end of its participant's mailbox, in the order given; return their ids."""
    if not events:
        return []
    seqs = await lanes.append(tx, Work.MAILBOX, [participant_id for participant_id, _ in events])
    rows = [
        {
            "id": tx.ids(),
            "participant_id": participant_id,
            "seq": seq,
            "kind": event.kind,
            "payload": encoded(event),
            "job_id": timer_of(participant_id, event),
            "dedupe_key": _key(event),
        }
        for (participant_id, event), seq in zip(events, seqs, strict=True)
    ]
    await tx.run("insert_events", events=to_json(rows), max_attempts=DEFAULT_MAX_ATTEMPTS)
    return [EventId(str(row["id"])) for row in rows]


def prompt_key(dedupe_key: str) -> str:
    """Return the key that an ordered prompt's event keeps taken until it is handled; the message's is another."""
    return f"prompt:{dedupe_key}"


def timer_of(participant_id: ParticipantId, event: Event) -> str | None:
    """Return by which job's id an event about a timer is found; one whose job has no id stands by its own."""
    match event:
        case TimerFired():
            return event.job_id
        case TimerLost():
            return event.job_id or f"{event.data_key}:{participant_id}"
        case _:
            return None


def _key(event: Event) -> str | None:
    if isinstance(event, PromptOrdered) and event.dedupe_key is not None:
        return prompt_key(event.dedupe_key)
    return event.dedupe_key if isinstance(event, TimerFired) else None


async def heads(tx: Transaction, participant_ids: Sequence[str]) -> dict[str, Row]:
    """Return the first events of those mailboxes that are not empty, by their participants."""
    [rows] = await tx.several(look(participant_ids))
    return {participant_id: first for participant_id, [first] in by_mailbox(rows).items()}


def look(participant_ids: Sequence[str], depth: int = 1) -> tuple[str, dict[str, object]]:
    """Return the statement, with its values, that finds the first *depth* events; `by_mailbox` reads its answer."""
    return "head_events", {"participant_ids": list(participant_ids), "depth": depth}


def by_mailbox(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the first events by their participants, in their order."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["seq"]):
        found[row["participant_id"]].append(row)
    return found


async def remove(tx: Transaction, ids: Sequence[str]) -> None:
    """Remove events that nobody is to handle any more."""
    if ids:
        await tx.several(removal(ids))


def removal(ids: Sequence[str]) -> tuple[str, dict[str, object]]:
    """Return the statement, with its values, that removes events, and says which were there."""
    return "delete_events", {"ids": list(ids)}


async def set_aside(tx: Transaction, row: Row, error: str) -> None:
    """Take an event out of its mailbox and keep it, with the reason, for an operator."""
    await tx.run("set_event_aside", id=row["id"], last_error=bounded(error))


def bounded(error: str) -> str:
    """Return an error's text as it can be stored."""
    return shortened(storable(error), MAX_ERROR_TEXT)
