"""What slows queues on PostgreSQL down: plans made when there was next to nothing, and what is gone but not away."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from promptpipe.model.decisions import Decided, Decision
from promptpipe.model.ids import JobId, ParticipantId
from promptpipe.model.jobs import Ending, Finish, NewJob
from tests.support.database import PostgresTestDatabase, running
from tests.support.echo import EchoFlow
from tests.support.people import ENROLLMENT, batch, inbound
from tests.support.postgres import open_snapshot
from tests.support.work import Working

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

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


async def searched(db: Database, index: str, work: Callable[[], Awaitable[None]]) -> int:
    """Return how many entries of an index *work* has stepped over; the store is closed then."""
    query = f"SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = '{index}'"
    [(before,)] = db.rows(query)
    await work()
    await db.close()
    [(after,)] = db.rows(query)
    return int(after) - int(before)


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


async def test_jobs_that_are_gone_are_not_stepped_over_again_and_again(fresh_database: str) -> None:
    """Neither they nor their leases, while a snapshot keeps them: each is come upon once."""
    number, at_once = 1000, 50
    async with running(PostgresTestDatabase(fresh_database)) as db:
        start = db.clock.now()

        async def work() -> None:
            jobs = db.store.jobs
            await jobs.enqueue_many(
                [
                    NewJob(id=JobId(db.new_id()), kind="k", run_at=start + timedelta(milliseconds=n))
                    for n in range(number)
                ]
            )
            db.clock.advance(10.0)
            claim, count = db.claim(at_once, thorough=False, suspect=False, sight=1.0), 0
            while leased := (await jobs.claim(claim)).items:
                count += len(leased)
                assert await jobs.finish([Ending(item.lease, Finish()) for item in leased]) == frozenset()
            assert count == number

        with open_snapshot(fresh_database):
            assert await searched(db, "jobs_due", work) < 1.5 * number


async def test_lanes_as_they_were_are_not_stepped_over_again_and_again(fresh_database: str) -> None:
    """Each change of a lane leaves an entry behind that a snapshot keeps: claims look at those of the last second."""
    rounds = 40
    async with running(PostgresTestDatabase(fresh_database)) as db:

        async def work() -> None:
            claim = db.claim(len(PEOPLE), thorough=False, suspect=False, sight=1.0)
            for number in range(rounds):
                await db.store.inbound.ingest(batch(*(inbound(f"{number}", sender) for sender in PEOPLE)), ENROLLMENT)
                db.clock.advance(2.0)
                claimed = (await db.store.mailboxes.claim(claim)).items
                assert len(claimed) == len(PEOPLE)
                await db.store.mailboxes.decide([Decided(delivery, Decision(), None) for delivery in claimed])

        with open_snapshot(fresh_database):
            assert await searched(db, "lanes_due", work) < 5 * rounds * len(PEOPLE)
