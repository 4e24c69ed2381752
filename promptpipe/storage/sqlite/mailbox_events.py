"""The rows of mailboxes: appending, taking the head, setting aside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.events import TimerFired, TimerLost, encoded
from promptpipe.model.leases import Work
from promptpipe.model.retry import DEFAULT_MAX_ATTEMPTS
from promptpipe.model.text import shortened, storable
from promptpipe.storage.sqlite import lanes
from promptpipe.storage.sqlite.values import to_json

if TYPE_CHECKING:
    import sqlite3

    from promptpipe.model.events import Event
    from promptpipe.model.ids import ParticipantId
    from promptpipe.storage.sqlite.transaction import Transaction

MAX_ERROR_TEXT = 2000


def append(tx: Transaction, participant_id: ParticipantId, event: Event) -> None:
    """Put *event* at the end of a participant's mailbox."""
    tx.run(
        "insert_event",
        id=tx.ids(),
        participant_id=participant_id,
        seq=lanes.append(tx, Work.MAILBOX, participant_id),
        kind=event.kind,
        payload=to_json(encoded(event)),
        job_id=event.job_id if isinstance(event, TimerFired | TimerLost) else None,
        dedupe_key=event.dedupe_key if isinstance(event, TimerFired) else None,
        max_attempts=DEFAULT_MAX_ATTEMPTS,
        now=tx.now,
    )


def head(tx: Transaction, participant_id: str) -> sqlite3.Row | None:
    """Return the first event of a mailbox, or None when it is empty."""
    return tx.one("head_event", participant_id=participant_id)


def remove(tx: Transaction, row: sqlite3.Row) -> None:
    """Remove an event that nobody is to handle any more."""
    tx.run("delete_event", id=row["id"])


def set_aside(tx: Transaction, row: sqlite3.Row, error: str) -> None:
    """Take an event out of its mailbox and keep it, with the reason, for an operator."""
    tx.run("set_event_aside", id=row["id"], last_error=bounded(error))


def bounded(error: str) -> str:
    """Return an error's text as it can be stored."""
    return shortened(storable(error), MAX_ERROR_TEXT)
