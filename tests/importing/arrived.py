"""What is here after an import, for tests to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.listing import JobFilter, MessageFilter, PageRequest
from tests.support.first import ADA, NUMBERS
from tests.support.people import phone

if TYPE_CHECKING:
    from promptpipe.model.jobs import Job
    from promptpipe.model.messages import OutboxMessage
    from promptpipe.model.participants import Participant
    from tests.support.database import Database


ALL = PageRequest(size=50)
ARRIVED = {
    "conversation_participants": (2, 2, 0, 0),
    "registered_hooks": (2, 2, 0, 0),
    "jobs": (2, 2, 0, 0),
    "flow_states": (2, 2, 0, 0),
    "outbox_messages": (6, 6, 0, 0),
    "inbound_dedup": (2, 2, 0, 0),
    "receipts": (2, 2, 0, 0),
    "responses": (2, 2, 0, 0),
}
"""How an import of the tests' old database goes: rows read, imported, skipped, and problems, by table."""


async def ada(db: Database) -> Participant:
    """Return Ada."""
    return await db.store.participants.find(phone(f"+{NUMBERS[ADA]}"))


async def messages(db: Database) -> dict[str, OutboxMessage]:
    """Return the messages by what they say."""
    return {str(one.content.body): one for one in (await db.store.outbox.list(MessageFilter(), ALL)).items}


async def jobs(db: Database) -> list[Job]:
    """Return the jobs, live and ended."""
    return list((await db.store.jobs.list(JobFilter(), ALL)).items)


def contents(db: Database) -> dict[str, list[tuple[object, ...]]]:
    """Return all rows but those that say how the import went."""
    own = {"schema_migrations", "test_clock", "imports", "sequences"}
    return {
        name: sorted(db.rows(f"SELECT * FROM {name}"), key=repr)
        for name in db.tables()
        if name not in own and not name.startswith("sqlite_")
    }
