"""Schedules: what every store promises of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from promptpipe.model.errors import InvalidArgumentError, NotFoundError, PreconditionError
from promptpipe.model.ids import ScheduleId
from promptpipe.model.leases import Work
from promptpipe.model.listing import JobFilter, PageRequest
from promptpipe.model.participants import ParticipantStatus
from promptpipe.model.recurrence import Recurrence
from promptpipe.model.schedules import Misfire, NewSchedule, Schedule, ScheduleEdit
from tests.support.people import BOB, enroll

if TYPE_CHECKING:
    from promptpipe.model.jobs import Job
    from tests.support.database import Database

# The clock of the tests starts on Sunday, 1 March 2026, at 12:00 UTC.
EVERY_MINUTE = Recurrence(cron="* * * * *")
AT_ONE = Recurrence(hour=13, minute=0)
AT_TWO = Recurrence(hour=14, minute=0)
ALL = PageRequest(size=500)


def new(db: Database, recurrence: Recurrence = AT_ONE, **other: object) -> NewSchedule:
    values: dict[str, object] = {"id": ScheduleId(db.new_id()), "kind": "test", "recurrence": recurrence, **other}
    return NewSchedule(**values)  # type: ignore[arg-type]


async def create(db: Database, recurrence: Recurrence = AT_ONE, **other: object) -> Schedule:
    return await db.store.schedules.create(new(db, recurrence, **other))


async def jobs(db: Database) -> list[Job]:
    """Return all jobs, in the order in which they were made."""
    return [*(await db.store.jobs.list(JobFilter(), ALL)).items][::-1]


async def occurrences(db: Database) -> list[object]:
    return [job.payload["occurrence"] for job in await jobs(db)]


def at(hour: int, minute: int = 0, *, day: int = 1) -> datetime:
    return datetime(2026, 3, day, hour, minute, tzinfo=UTC)


def go_to(db: Database, instant: datetime) -> None:
    db.clock.advance((instant - db.clock.now()).total_seconds())


async def test_schedule_is_returned_as_it_was_made(db: Database) -> None:
    """With its first time; made once, however often that is asked for, and the runner is told."""
    person = await enroll(db)
    wanted = new(
        db,
        Recurrence(cron="0 9 * * 1-5", zone="America/Toronto"),
        payload={"text": "é", "n": 3},
        queue="default",
        priority=2,
        participant_id=person,
        misfire=Misfire.SKIP,
    )
    db.runners.woken.clear()
    made = await db.store.schedules.create(wanted)
    assert db.runners.woken == [Work.SCHEDULE]
    assert made == Schedule(
        id=wanted.id,
        version=1,
        kind="test",
        queue="default",
        priority=2,
        payload={"text": "é", "n": 3},
        recurrence=wanted.recurrence,
        misfire=Misfire.SKIP,
        paused=False,
        created_at=db.clock.now(),
        updated_at=db.clock.now(),
        participant_id=person,
        next_at=at(14, day=2),
    )
    db.clock.advance(86_400 * 3)
    assert await db.store.schedules.create(wanted) == made == await db.store.schedules.get(wanted.id)


async def test_rule_by_fields_comes_back_as_it_went(db: Database) -> None:
    """Absent ones are absent."""
    rule = Recurrence(minute=0, day=31, weekday=0, zone="Australia/Lord_Howe")
    assert (await create(db, rule)).recurrence == rule


async def test_rule_that_is_none_is_not_stored(db: Database) -> None:
    """Nothing would ever come of it."""
    with pytest.raises(InvalidArgumentError):
        await create(db, Recurrence(cron="0 0 30 2 *"))
    assert (await db.store.schedules.list(None, ALL)).items == ()


async def test_unknown_schedules_are_not_found(db: Database) -> None:
    """By none of the methods."""
    store, nobody = db.store.schedules, ScheduleId("nobody")
    for call in (
        store.get(nobody),
        store.pause(nobody),
        store.resume(nobody),
        store.update(nobody, 1, ScheduleEdit(recurrence=AT_ONE, payload={}, misfire=Misfire.RUN)),
    ):
        with pytest.raises(NotFoundError):
            await call
    assert await store.delete(nobody) is False


async def test_lists_are_pages_the_newest_first(db: Database) -> None:
    """Of all, or of one participant's."""
    ada, bob = await enroll(db), await enroll(db, BOB)
    made = [(await create(db, participant_id=person)).id for person in (ada, bob, ada, None)][::-1]
    first = await db.store.schedules.list(None, PageRequest(size=3))
    rest = await db.store.schedules.list(None, PageRequest(size=3, after=first.last))
    assert ([item.id for item in first.items], [item.id for item in rest.items]) == (made[:3], made[3:])
    of_ada = await db.store.schedules.list(ada, PageRequest(size=1))
    rest = await db.store.schedules.list(ada, PageRequest(size=1, after=of_ada.last))
    assert [item.id for item in (*of_ada.items, *rest.items)] == [made[1], made[3]]
    assert rest.last is None


async def test_schedule_fires_when_due_and_not_before(db: Database) -> None:
    """One job, with all that tells which firing it is; the next time is set in the same commit."""
    made = await create(db, payload={"text": "hi", "version": "ours wins"}, queue="default", priority=0)
    go_to(db, at(12, 59))
    early = await db.store.schedules.fire(10)
    assert (early.jobs, early.next_due_in) == (0, 60.0)
    go_to(db, at(13))
    db.runners.woken.clear()
    fired = await db.store.schedules.fire(10)
    assert (fired.jobs, fired.next_due_in, fired.unreadable) == (1, 86_400.0, ())
    assert db.runners.woken == [Work.JOB]
    [job] = await jobs(db)
    assert (job.kind, job.queue, job.priority, job.run_at) == ("test", "default", 0, at(13))
    assert (job.dedupe_key, job.participant_id) == (f"schedule:{made.id}:2026-03-01T13:00Z", None)
    assert job.payload == {
        "text": "hi",
        "schedule_id": made.id,
        "version": 1,
        "occurrence": "2026-03-01T13:00Z",
        "expires_at": "2026-03-02T01:00:00+00:00",
    }
    assert (await db.store.jobs.claim(db.claim())).items[0].job.id == job.id
    after = await db.store.schedules.get(made.id)
    assert (after.last_at, after.next_at, after.version) == (at(13), at(13, day=2), 1)
    db.runners.woken.clear()
    assert ((await db.store.schedules.fire(10)).jobs, db.runners.woken) == (0, [])


async def test_many_due_at_once_fire_in_batches(db: Database) -> None:
    """Each batch is one commit; none is forgotten, none fires twice, those that wait longest come first."""
    late = [(await create(db, Recurrence(hour=12, minute=59))).id for _ in range(3)]
    made = [(await create(db)).id for _ in range(247)]
    go_to(db, at(13))
    counts = []
    while (fired := await db.store.schedules.fire(100)).next_due_in == 0.0:
        counts.append(fired.jobs)
        if len(counts) == 1:
            assert {job.payload["schedule_id"] for job in await jobs(db)} >= set(late)
    assert [*counts, fired.jobs] == [100, 100, 50]
    assert sorted(str(job.payload["schedule_id"]) for job in await jobs(db)) == sorted([*late, *made])


@pytest.mark.parametrize(
    ("misfire", "recurrence", "now", "expected"),
    [
        # On time, to the second of the minute's end.
        (Misfire.RUN, AT_ONE, at(13), ["2026-03-01T13:00Z"]),
        (Misfire.SKIP, AT_ONE, at(13), ["2026-03-01T13:00Z"]),
        (Misfire.SKIP, AT_ONE, at(13, 1), ["2026-03-01T13:00Z"]),
        # Missed.
        (Misfire.SKIP, AT_ONE, at(13, 1) + timedelta(microseconds=1), []),
        (Misfire.RUN, AT_ONE, at(13, 1) + timedelta(microseconds=1), ["2026-03-01T13:00Z"]),
        (Misfire.RUN, AT_ONE, at(13, day=9) - timedelta(seconds=1), ["2026-03-08T13:00Z"]),
        (Misfire.SKIP, AT_ONE, at(12, day=9), []),
        # Several, the last of them not missed: it is the one.
        (Misfire.RUN, EVERY_MINUTE, at(15, 30), ["2026-03-01T15:30Z"]),
        (Misfire.SKIP, EVERY_MINUTE, at(15, 30), ["2026-03-01T15:30Z"]),
        (Misfire.SKIP, AT_ONE, at(13, day=5), ["2026-03-05T13:00Z"]),
        (Misfire.SKIP, Recurrence(cron="*/5 * * * *"), at(15, 32), []),
        (Misfire.RUN, Recurrence(cron="*/5 * * * *"), at(15, 32), ["2026-03-01T15:30Z"]),
    ],
)
async def test_missed_times_become_one_job_or_none(
    db: Database, misfire: Misfire, recurrence: Recurrence, now: datetime, expected: list[str]
) -> None:
    """Late by more than a minute is missed; the one job is for the last time; what comes next is in the future."""
    made = await create(db, recurrence, misfire=misfire)
    go_to(db, now)
    assert (await db.store.schedules.fire(10)).jobs == len(expected)
    assert await occurrences(db) == expected
    after = await db.store.schedules.get(made.id)
    assert after.next_at == recurrence.next_after(now)
    assert after.last_at == (None if not expected else datetime.fromisoformat(expected[0]))
    assert (await db.store.schedules.fire(10)).jobs == 0


async def test_each_of_a_batch_follows_its_own_rule(db: Database) -> None:
    """Whatever others of it have in common with it."""
    twice = Recurrence(cron="0 13,14 * * *")
    made = [
        await create(db, recurrence, misfire=misfire)
        for recurrence, misfire in ((AT_ONE, Misfire.RUN), (AT_ONE, Misfire.SKIP), (twice, Misfire.RUN))
    ]
    go_to(db, at(14, 30))
    assert (await db.store.schedules.fire(10)).jobs == 2
    after = [await db.store.schedules.get(one.id) for one in made]
    assert [one.last_at for one in after] == [at(13), None, at(14)]
    assert [one.next_at for one in after] == [at(13, day=2)] * 3


async def test_paused_schedule_lets_its_times_pass(db: Database) -> None:
    """Resumed, it goes on with the next; nothing between fires, and what it was before is unchanged."""
    made = await create(db)
    paused = await db.store.schedules.pause(made.id)
    assert (paused.paused, paused.next_at, paused.version) == (True, None, 1)
    assert await db.store.schedules.pause(made.id) == paused
    go_to(db, at(13, day=3))
    assert (await db.store.schedules.fire(10)).jobs == 0
    go_to(db, at(14, day=3))
    db.runners.woken.clear()
    resumed = await db.store.schedules.resume(made.id)
    assert (resumed.paused, resumed.next_at, db.runners.woken) == (False, at(13, day=4), [Work.SCHEDULE])
    db.clock.advance(5)
    assert await db.store.schedules.resume(made.id) == resumed
    assert (await db.store.schedules.fire(10)).jobs == 0


async def test_resuming_does_not_fire_again(db: Database) -> None:
    """Even if the clock went back meanwhile."""
    made = await create(db)
    go_to(db, at(13))
    await db.store.schedules.fire(10)
    await db.store.schedules.pause(made.id)
    go_to(db, at(12, 30))
    assert (await db.store.schedules.resume(made.id)).next_at == at(13, day=2)


async def test_edited_schedule_goes_on_with_its_new_rule(db: Database) -> None:
    """In a new version, with a new payload; the old rule's time is nobody's any more."""
    made = await create(db, payload={"text": "old"})
    edit = ScheduleEdit(recurrence=AT_TWO, payload={"text": "new"}, misfire=Misfire.SKIP)
    db.runners.woken.clear()
    edited = await db.store.schedules.update(made.id, 1, edit)
    assert edited == replace(
        made, version=2, recurrence=AT_TWO, payload={"text": "new"}, misfire=Misfire.SKIP, next_at=at(14)
    )
    assert db.runners.woken == [Work.SCHEDULE]
    go_to(db, at(13))
    assert (await db.store.schedules.fire(10)).jobs == 0
    go_to(db, at(14))
    await db.store.schedules.fire(10)
    [job] = await jobs(db)
    assert (job.payload["text"], job.payload["version"]) == ("new", 2)


async def test_edit_never_fires_again(db: Database) -> None:
    """The same rule keeps its next time, due or not; another one begins after now, and after what has fired."""
    made = await create(db)
    go_to(db, at(13))
    await db.store.schedules.fire(10)
    same = ScheduleEdit(recurrence=AT_ONE, payload={"text": "new"}, misfire=Misfire.RUN)
    assert (await db.store.schedules.update(made.id, 1, same)).next_at == at(13, day=2)
    go_to(db, at(13, day=2))
    assert (await db.store.schedules.update(made.id, 2, replace(same, payload={}))).next_at == at(13, day=2)
    await db.store.schedules.fire(10)
    go_to(db, at(12, day=2))
    other = replace(same, recurrence=Recurrence(cron="0 13 * * *"))
    assert (await db.store.schedules.update(made.id, 3, other)).next_at == at(13, day=3)
    assert await occurrences(db) == ["2026-03-01T13:00Z", "2026-03-02T13:00Z"]


async def test_edit_of_a_paused_schedule_leaves_it_paused(db: Database) -> None:
    """Until it is resumed, with the new rule."""
    made = await create(db)
    await db.store.schedules.pause(made.id)
    edit = ScheduleEdit(recurrence=AT_TWO, payload={}, misfire=Misfire.RUN)
    edited = await db.store.schedules.update(made.id, 1, edit)
    assert (edited.paused, edited.next_at) == (True, None)
    assert (await db.store.schedules.resume(made.id)).next_at == at(14)


async def test_edit_of_another_version_is_refused_and_a_repeated_one_is_not(db: Database) -> None:
    """Two who edit do not overwrite each other; one whose answer was lost asks again."""
    made = await create(db)
    edit = ScheduleEdit(recurrence=AT_TWO, payload={"n": 1}, misfire=Misfire.RUN)
    edited = await db.store.schedules.update(made.id, 1, edit)
    assert await db.store.schedules.update(made.id, 1, edit) == edited
    with pytest.raises(PreconditionError, match="version is 2"):
        await db.store.schedules.update(made.id, 1, replace(edit, payload={"n": 2}))
    with pytest.raises(PreconditionError):
        await db.store.schedules.update(made.id, 3, edit)
    assert await db.store.schedules.get(made.id) == edited


async def test_deleted_schedule_fires_no_more(db: Database) -> None:
    """The jobs that it made stay."""
    made = await create(db)
    go_to(db, at(13))
    await db.store.schedules.fire(10)
    assert await db.store.schedules.delete(made.id) is True
    go_to(db, at(13, day=2))
    fired = await db.store.schedules.fire(10)
    assert (fired.jobs, fired.next_due_in, len(await jobs(db))) == (0, None, 1)
    assert await db.store.schedules.delete(made.id) is False


@pytest.mark.parametrize("status", [status for status in ParticipantStatus if status is not ParticipantStatus.ACTIVE])
async def test_schedule_of_someone_who_is_not_active_makes_no_job(db: Database, status: ParticipantStatus) -> None:
    """Its times pass; active again, they get the next one. Others are not concerned."""
    ada, bob = await enroll(db), await enroll(db, BOB)
    made, _, _ = [await create(db, participant_id=person) for person in (ada, bob, None)]
    await db.store.participants.update(ada, {}, status)
    go_to(db, at(13))
    assert (await db.store.schedules.fire(10)).jobs == 2
    after = await db.store.schedules.get(made.id)
    assert (after.last_at, after.next_at) == (None, at(13, day=2))
    await db.store.participants.update(ada, {}, ParticipantStatus.ACTIVE)
    assert (await db.store.schedules.fire(10)).jobs == 0
    go_to(db, at(13, day=2))
    assert (await db.store.schedules.fire(10)).jobs == 3
    await db.store.participants.update(ada, {}, status)
    go_to(db, at(13, day=3))
    assert (await db.store.schedules.fire(10)).jobs == 2
    assert (await db.store.schedules.get(made.id)).last_at == at(13, day=2)


async def test_live_job_with_the_key_of_a_firing_stands_for_it(db: Database) -> None:
    """As every dedupe key promises."""
    made = await create(db)
    go_to(db, at(13))
    await db.store.schedules.fire(10)
    db.change("UPDATE schedules SET next_at = last_at WHERE id = ?", made.id)
    assert (await db.store.schedules.fire(10)).jobs == 0
    assert len(await jobs(db)) == 1


async def test_schedule_that_cannot_be_read_is_paused_and_holds_up_nobody(db: Database) -> None:
    """A zone that was abolished, or a hand in the database."""
    bad = [(await create(db)).id for _ in range(2)]
    db.change("UPDATE schedules SET zone = 'Mars/Olympus' WHERE id = ?", bad[0])
    db.change("UPDATE schedules SET cron = 'often' WHERE id = ?", bad[1])
    good = await create(db)
    go_to(db, at(13))
    fired = await db.store.schedules.fire(10)
    assert (fired.jobs, sorted(fired.unreadable)) == (1, sorted(bad))
    assert [(await db.store.schedules.get(name)).paused for name in (*bad, good.id)] == [True, True, False]
    assert [(await db.store.schedules.get(name)).next_at for name in bad] == [None, None]
    with pytest.raises(InvalidArgumentError):
        await db.store.schedules.resume(bad[0])


async def test_schedule_that_a_hand_has_paused_does_not_fire(db: Database) -> None:
    """The flag is enough."""
    made = await create(db)
    db.change("UPDATE schedules SET paused = ?", True)
    go_to(db, at(13))
    assert (await db.store.schedules.fire(10)).jobs == 0
    assert (await db.store.schedules.resume(made.id)).next_at == at(13, day=2)


async def test_recovery_gives_schedules_their_next_time(db: Database) -> None:
    """Those that are active and have none; the others stay as they are, and so do all when it is done again."""
    made = [(await create(db)).id for _ in range(6)]
    db.change("UPDATE schedules SET next_at = NULL WHERE id <> ?", made[0])
    await db.store.schedules.pause(made[1])
    db.change("UPDATE schedules SET zone = 'Mars/Olympus' WHERE id = ?", made[2])
    db.change("UPDATE schedules SET last_at = next_at WHERE id = ?", made[0])
    db.runners.woken.clear()
    repaired = [await db.store.recovery.repair_schedules(3) for _ in range(3)]
    assert (repaired, Work.SCHEDULE in db.runners.woken) == ([made[2:5], made[5:], []], True)
    after = [await db.store.schedules.get(name) for name in made]
    assert [item.next_at for item in after] == [at(13), None, None, at(13), at(13), at(13)]
    assert [item.paused for item in after] == [False, True, True, False, False, False]


async def test_restart_loses_no_firing_and_doubles_none(db: Database) -> None:
    """Killed before the commit, it fires after the restart; killed after it, it does not."""
    await create(db)
    go_to(db, at(13))
    await db.restart()
    assert (await db.store.schedules.fire(10)).jobs == 1
    await db.restart()
    assert (await db.store.schedules.fire(10)).jobs == 0
    assert await occurrences(db) == ["2026-03-01T13:00Z"]
