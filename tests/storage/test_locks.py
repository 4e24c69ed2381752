"""Races on PostgreSQL that chance meets once in a thousand times, by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest
import trio

from promptpipe.model.errors import PreconditionError
from promptpipe.model.ids import JobId
from promptpipe.model.jobs import NewJob
from promptpipe.model.messages import MessageStatus
from tests.support.database import PostgresTestDatabase, running
from tests.support.eventually import eventually
from tests.support.people import enroll
from tests.support.sending import REFUSED, claim_order, put, settle, status

if TYPE_CHECKING:
    from promptpipe.model.ids import MessageId

BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def test_key_that_was_held_and_whose_job_has_ended_meanwhile_is_taken(fresh_database: str) -> None:
    """Who looked before that, and has added a job already, takes it back and gets the other."""
    async with running(PostgresTestDatabase(fresh_database)) as db:
        period = timedelta(hours=1)
        first = NewJob(id=JobId("first"), kind="t", run_at=db.clock.now(), dedupe_key="k", dedupe_period=period)
        await db.store.jobs.enqueue(first)
        await db.store.jobs.cancel(first.id)
        db.change("DELETE FROM job_dedupe")
        answers = []

        async def enqueue() -> None:
            job, created = await db.store.jobs.enqueue(replace(first, id=JobId("second")))
            answers.append((job.id, created))

        with psycopg.connect(fresh_database) as other:
            other.execute("INSERT INTO job_dedupe VALUES ('k', 'first', %s)", [db.clock.now() + period])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(enqueue)
                await eventually(lambda: db.rows(BLOCKED) == [(1,)])
                other.commit()
        assert (answers, db.rows("SELECT id FROM jobs")) == ([("first", False)], [])


@pytest.mark.parametrize(("asked", "meanwhile"), [("cancel", "sending"), ("retry", "delivered")])
async def test_operator_waits_for_whoever_has_the_lane(fresh_database: str, asked: str, meanwhile: str) -> None:
    """And then sees what that one has done to the message."""
    async with running(PostgresTestDatabase(fresh_database)) as db:
        message_id: MessageId = await put(db, await enroll(db))
        if asked == "retry":
            await settle(db, await claim_order(db), REFUSED)
        answers = []

        async def ask() -> None:
            try:
                await getattr(db.store.outbox, asked)(message_id)
            except PreconditionError as error:
                answers.append(str(error))

        with psycopg.connect(fresh_database) as other:
            other.execute("SELECT 1 FROM lanes WHERE kind = 'outbox' FOR UPDATE")
            other.execute("UPDATE outbox_messages SET status = %s", [meanwhile])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await eventually(lambda: db.rows(BLOCKED) == [(1,)])
                other.commit()
        assert await status(db, message_id) is MessageStatus(meanwhile)
        assert meanwhile in answers[0]
