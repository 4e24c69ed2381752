"""Schedules that many fire, edit and stop at once. On PostgreSQL these are as many connections."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import psycopg
import pytest
import trio

from promptpipe.model.errors import PreconditionError
from promptpipe.model.ids import ScheduleId
from promptpipe.model.listing import JobFilter, PageRequest
from promptpipe.model.recurrence import Recurrence
from promptpipe.model.schedules import Misfire, NewSchedule, Schedule, ScheduleEdit
from promptpipe.storage.transactions import schedules
from tests.contract.test_races import MANY, all_at_once
from tests.support.database import PostgresTestDatabase, running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support.database import Database

DAILY = Recurrence(hour=13, minute=0)


async def due_schedules(db: Database, number: int = MANY) -> list[Schedule]:
    """Return schedules that have come due."""
    new = [NewSchedule(id=ScheduleId(db.new_id()), kind="test", recurrence=DAILY) for _ in range(number)]
    made = [await db.store.schedules.create(one) for one in new]
    db.clock.advance(3600)
    return made


def fired_for(db: Database) -> list[str]:
    """Return the ids of the schedules that made jobs, one for each job."""
    return sorted(key.split(":")[1] for (key,) in db.rows("SELECT dedupe_key FROM jobs"))


async def test_no_schedule_fires_twice_however_many_fire(db: Database) -> None:
    """What one has in hand the others pass over; all that is due has fired in the end."""
    made = await due_schedules(db, 3 * MANY)
    fired = await all_at_once([partial(db.store.schedules.fire, 5)] * MANY)
    while (more := await db.store.schedules.fire(5)).jobs:  # what was passed over, locked
        fired.append(more)
    assert fired_for(db) == sorted(one.id for one in made)
    assert sum(one.jobs for one in fired) == 3 * MANY


async def test_fired_schedule_that_is_forgotten_by_the_jobs_does_not_fire_again(db: Database) -> None:
    """It is not the dedupe key that keeps it from that: the jobs may long have ended."""
    await due_schedules(db)

    async def fire_and_forget() -> int:
        fired = (await db.store.schedules.fire(100)).jobs
        db.change("UPDATE jobs SET dedupe_key = NULL")
        return fired

    assert sum(await all_at_once([fire_and_forget] * MANY)) == MANY
    assert db.rows("SELECT count(*) FROM jobs") == [(MANY,)]


async def test_firing_moves_only_what_it_has_looked_at(db: Database) -> None:
    """Were a row not locked, its version and its time would still have to be the same."""
    made = [one.id for one in await due_schedules(db, 3)]
    database = db.store.schedules._database  # type: ignore[attr-defined]
    looked_at = await database.write(lambda tx: tx.all("due_schedules", limit=10))
    moves = [schedules._Move(row, None, db.clock.now() + timedelta(days=1)) for row in looked_at]
    db.change("UPDATE schedules SET version = 2 WHERE id = ?", made[0])
    await db.store.schedules.pause(made[1])
    assert await database.write(partial(schedules._move, moves=moves)) == {made[2]}
    assert (await db.store.schedules.get(made[1])).next_at is None


async def test_schedule_that_another_has_in_hand_is_passed_over(fresh_database: str) -> None:
    """The others fire at once; it does when it is let go."""
    async with running(PostgresTestDatabase(fresh_database)) as db:
        made = [one.id for one in await due_schedules(db, 3)]
        with psycopg.connect(fresh_database) as another:
            another.execute("SELECT * FROM schedules WHERE id = %s FOR UPDATE", [made[0]])
            with trio.fail_after(5):
                assert (await db.store.schedules.fire(10)).jobs == 2
        assert (await db.store.schedules.fire(10)).jobs == 1


async def test_new_words_for_the_same_times_do_not_bring_one_back(db: Database) -> None:
    """An edit that leaves the rule alone leaves the time alone that firing sets meanwhile."""
    made = await due_schedules(db)
    edit = ScheduleEdit(recurrence=DAILY, payload={"new": True}, misfire=Misfire.RUN)
    calls: list[Callable[[], Awaitable[object]]] = []
    for one in made:
        calls += [partial(db.store.schedules.update, one.id, 1, edit), partial(db.store.schedules.fire, 2)]
    await all_at_once(calls)
    while (await db.store.schedules.fire(100)).jobs:
        pass
    db.change("UPDATE jobs SET dedupe_key = NULL")
    assert (await db.store.schedules.fire(100)).jobs == 0
    assert db.rows("SELECT count(*) FROM jobs") == [(MANY,)]
    assert db.rows("SELECT DISTINCT version FROM schedules") == [(2,)]


async def test_schedule_that_is_edited_while_it_fires_fires_at_most_once(db: Database) -> None:
    """Before the edit, in its old version, or not at all: the new rule's times are all ahead."""
    made = await due_schedules(db)
    edit = ScheduleEdit(recurrence=Recurrence(cron="0 13,14 * * *"), payload={"new": True}, misfire=Misfire.RUN)
    calls: list[Callable[[], Awaitable[object]]] = []
    for one in made:
        calls += [partial(db.store.schedules.update, one.id, 1, edit), partial(db.store.schedules.fire, 2)]
    await all_at_once(calls)
    await db.store.schedules.fire(100)
    assert len(fired_for(db)) == len(set(fired_for(db)))
    after = [await db.store.schedules.get(one.id) for one in made]
    an_hour_later = db.clock.now().replace(hour=14)
    assert [(one.version, one.next_at) for one in after] == [(2, an_hour_later)] * MANY
    assert {one.id for one in after if one.last_at is not None} == set(fired_for(db))
    made_jobs = (await db.store.jobs.list(JobFilter(), PageRequest(size=100))).items
    assert [job.payload["version"] for job in made_jobs] == [1] * len(fired_for(db))


@pytest.mark.parametrize("method", ["pause", "delete"])
async def test_schedule_that_is_stopped_while_it_fires_fires_once_or_not(db: Database, method: str) -> None:
    """And no more after that."""
    made = await due_schedules(db)
    calls: list[Callable[[], Awaitable[object]]] = []
    for one in made:
        calls += [partial(getattr(db.store.schedules, method), one.id), partial(db.store.schedules.fire, 2)]
    await all_at_once(calls)
    fired = fired_for(db)
    assert len(fired) == len(set(fired))
    db.clock.advance(86_400)
    assert (await db.store.schedules.fire(100)).jobs == 0
    if method == "pause":
        after = [await db.store.schedules.resume(one.id) for one in made]
        assert all(one.next_at is not None and one.next_at > db.clock.now() for one in after)
        assert {one.id for one in after if one.last_at is not None} == set(fired)


async def test_one_of_those_who_edit_a_version_does(db: Database) -> None:
    """The others are told that they came too late."""
    [made] = await due_schedules(db, 1)

    async def edit(version: int, number: int) -> bool:
        wanted = ScheduleEdit(recurrence=DAILY, payload={"n": number}, misfire=Misfire.RUN)
        try:
            await db.store.schedules.update(made.id, version, wanted)
        except PreconditionError:
            return False
        return True

    for version in range(1, 6):
        answers = await all_at_once(partial(edit, version, number) for number in range(MANY))
        assert sorted(answers) == [False] * (MANY - 1) + [True]
    assert (await db.store.schedules.get(made.id)).version == 6
