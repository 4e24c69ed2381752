"""A backlog on PostgreSQL, worked off by statements that were planned when there was next to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.ids import JobId, ParticipantId
from promptpipe.model.jobs import NewJob
from tests.support.database import PostgresTestDatabase, running
from tests.support.echo import EchoFlow
from tests.support.people import ENROLLMENT, batch, inbound
from tests.support.work import Working

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.database import Database

PEOPLE = [f"+1650555{number:04}" for number in range(40)]
TEXTS = 25
OFTEN = 10
"""More than it takes until a connection has planned each statement for good."""

READ_WHOLE = """
SELECT relname, seq_tup_read FROM pg_stat_user_tables
WHERE schemaname = 'public' AND relname NOT IN ('test_clock', 'schema_migrations')
"""


async def write(db: Database, ids: Sequence[str], texts: int) -> None:
    """Have everybody write, and as many timers of theirs fire."""
    for number in range(texts):
        await db.store.inbound.ingest(batch(*(inbound(f"{number}", sender) for sender in PEOPLE)), ENROLLMENT)
    await db.store.jobs.enqueue_many(
        [
            NewJob(id=JobId(db.new_id()), kind="tick", run_at=db.clock.now(), participant_id=ParticipantId(id_))
            for id_ in ids
            for _ in range(texts)
        ]
    )


def read_whole(db: Database) -> dict[str, int]:
    """Return how many rows were read by scans of whole tables, as far as closed connections have reported."""
    return dict(db.rows(READ_WHOLE))


async def test_backlog_is_not_read_from_end_to_end(fresh_database: str) -> None:
    """Whatever was planned on empty tables."""
    async with running(PostgresTestDatabase(fresh_database)) as db:
        before = read_whole(db)
        working = Working(db, [EchoFlow()])
        await write(db, [], 1)
        await working.everything()
        ids = [id_ for (id_,) in db.rows("SELECT id FROM conversation_participants")]
        for _ in range(OFTEN):
            await write(db, ids, 1)
            assert len(await working.everything()) == 2 * len(PEOPLE)
        await write(db, ids, TEXTS)
        assert len(await working.everything()) == 2 * TEXTS * len(PEOPLE)
        await db.close()
        rows = {name: after - before.get(name, 0) for name, after in read_whole(db).items()}
        assert {name: count for name, count in rows.items() if count > len(PEOPLE)} == {}
