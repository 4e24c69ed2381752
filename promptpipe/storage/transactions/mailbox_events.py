"""The rows of mailboxes: appending, taking the head, setting aside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.events import TimerFired, TimerLost, encoded
from promptpipe.model.leases import Work
from promptpipe.model.retry import DEFAULT_MAX_ATTEMPTS
from promptpipe.model.text import shortened, storable
from promptpipe.storage.transactions import lanes
from promptpipe.storage.transactions.values import to_json

if TYPE_CHECKING:
    from promptpipe.model.events import Event
    from promptpipe.model.ids import ParticipantId
    from promptpipe.storage.transactions.transaction import Row, Transaction

MAX_ERROR_TEXT = 2000


async def append(tx: Transaction, participant_id: ParticipantId, event: Event) -> None:
    """Put *event* at the end of a participant's mailbox."""
    await tx.run(
        "insert_event",
        id=tx.ids(),
        participant_id=participant_id,
        seq=await lanes.append(tx, Work.MAILBOX, participant_id),
        kind=event.kind,
        payload=to_json(encoded(event)),
        job_id=event.job_id if isinstance(event, TimerFired | TimerLost) else None,
        dedupe_key=event.dedupe_key if isinstance(event, TimerFired) else None,
        max_attempts=DEFAULT_MAX_ATTEMPTS,
    )


async def head(tx: Transaction, participant_id: str) -> Row | None:
    """Return the first event of a mailbox, or None when it is empty."""
    return await tx.one("head_event", participant_id=participant_id)


async def remove(tx: Transaction, row: Row) -> None:
    """Remove an event that nobody is to handle any more."""
    await tx.run("delete_event", id=row["id"])


async def set_aside(tx: Transaction, row: Row, error: str) -> None:
    """Take an event out of its mailbox and keep it, with the reason, for an operator."""
    await tx.run("set_event_aside", id=row["id"], last_error=bounded(error))


def bounded(error: str) -> str:
    """Return an error's text as it can be stored."""
    return shortened(storable(error), MAX_ERROR_TEXT)
