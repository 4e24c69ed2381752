"""What schedules say: once for each of their times, and not when nobody wants it any more."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from promptpipe.model.errors import FailJobError, PayloadError
from promptpipe.model.ids import JobId, ParticipantId
from promptpipe.model.jobs import NewJob
from promptpipe.model.listing import JobFilter, MessageFilter, PageRequest
from promptpipe.model.messages import MessageClass, Text
from promptpipe.model.participants import ParticipantStatus
from promptpipe.model.prompts import StaticPrompt, prompt_payload
from promptpipe.model.recurrence import Recurrence
from promptpipe.model.schedules import Misfire, Schedule, ScheduleEdit
from promptpipe.services.scheduled_prompts import ScheduledPrompts
from promptpipe.services.schedules import PromptRequest, Schedules
from tests.support.people import enroll

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from promptpipe.model.jobs import Job
    from promptpipe.model.messages import OutboxMessage
    from tests.support.database import Database

# The clock of the tests starts on Sunday, 1 March 2026, at 12:00 UTC.
AT_ONE = Recurrence(hour=13, minute=0)
HOUR, DAY = 3600.0, 86_400.0


async def scheduled(db: Database, recurrence: Recurrence = AT_ONE) -> Schedule:
    person = await enroll(db)
    service = Schedules(db.store.schedules, db.store.participants, db.new_id)
    request = PromptRequest(participant_id=person, prompt=StaticPrompt("stretch"), recurrence=recurrence)
    return await service.prompt(request)


async def fire(db: Database) -> Job:
    """Let the schedule fire, and return its job."""
    assert (await db.store.schedules.fire(10)).jobs == 1
    return (await db.store.jobs.list(JobFilter(), PageRequest(size=1))).items[0]


async def run(db: Database, job: Job) -> None:
    kind = ScheduledPrompts(db.store, db.new_id).kind
    await kind.run(job, kind.decoded(job.payload))


async def messages(db: Database) -> list[OutboxMessage]:
    return list((await db.store.outbox.list(MessageFilter(), PageRequest(size=9))).items)


async def test_prompt_is_enqueued_once_however_often_its_job_runs(db: Database) -> None:
    """A broadcast, which an answer may overtake; the job is at-least-once, the prompt is once."""
    made = await scheduled(db)
    db.clock.advance(HOUR)
    job = await fire(db)
    await run(db, job)
    await run(db, replace(job, attempt=2))
    [message] = await messages(db)
    assert (message.participant_id, message.content) == (made.participant_id, Text("stretch"))
    assert (message.message_class, message.channel) == (MessageClass.BROADCAST, "whatsapp")
    assert message.dedupe_key == f"schedule:{made.id}:2026-03-01T13:00Z"


async def test_next_time_is_another_prompt(db: Database) -> None:
    """Its key is another."""
    await scheduled(db)
    db.clock.advance(HOUR)
    await run(db, await fire(db))
    db.clock.advance(DAY)
    await run(db, await fire(db))
    assert len(await messages(db)) == 2


@pytest.mark.parametrize(
    ("recurrence", "late", "expires_after"),
    [
        (AT_ONE, 0.0, timedelta(hours=12)),
        (Recurrence(cron="0 13,15 * * *"), 0.0, timedelta(hours=2)),
        (Recurrence(cron="* * * * *"), 0.0, timedelta(minutes=1)),
        # What is made up for, five hours late, has its time from then on.
        (AT_ONE, 5 * HOUR, timedelta(hours=17)),
        # But not beyond the next one's.
        (AT_ONE, 23 * HOUR, timedelta(hours=24)),
    ],
)
async def test_prompt_expires_with_the_next_one_or_after_twelve_hours(
    db: Database, recurrence: Recurrence, late: float, expires_after: timedelta
) -> None:
    """Counted from its time, or from when a missed one was made up for."""
    await scheduled(db, recurrence)
    db.clock.advance(HOUR)
    occurrence: datetime = db.clock.now()
    db.clock.advance(late)
    job = await fire(db)
    db.clock.advance(1)
    await run(db, job)
    [message] = await messages(db)
    assert message.expires_at == occurrence + expires_after


@pytest.mark.parametrize("change", ["delete", "pause", "edit"])
async def test_prompt_of_a_schedule_that_was_changed_since_is_not_sent(db: Database, change: str) -> None:
    """Nobody is prompted by what was deleted, paused or edited before the job ran."""
    made = await scheduled(db)
    db.clock.advance(HOUR)
    job = await fire(db)
    store = db.store.schedules
    edit = ScheduleEdit(recurrence=AT_ONE, payload=prompt_payload(StaticPrompt("breathe")), misfire=Misfire.RUN)
    changes: dict[str, Callable[[], Awaitable[object]]] = {
        "delete": lambda: store.delete(made.id),
        "pause": lambda: store.pause(made.id),
        "edit": lambda: store.update(made.id, 1, edit),
    }
    await changes[change]()
    await run(db, job)
    assert await messages(db) == []


@pytest.mark.parametrize("status", [status for status in ParticipantStatus if status is not ParticipantStatus.ACTIVE])
async def test_someone_who_is_not_active_any_more_is_not_prompted(db: Database, status: ParticipantStatus) -> None:
    """Whatever fired before."""
    made = await scheduled(db)
    db.clock.advance(HOUR)
    job = await fire(db)
    await db.store.participants.update(made.participant_id or ParticipantId(""), {}, status)
    await run(db, job)
    assert await messages(db) == []


async def test_job_that_no_schedule_made_fails_for_good(db: Database) -> None:
    """Somebody enqueued it by hand, or changed what the schedule says."""
    made = await scheduled(db)
    new = NewJob(id=JobId(db.new_id()), kind="scheduled_prompt", run_at=db.clock.now())
    job, _ = await db.store.jobs.enqueue(new)
    with pytest.raises(PayloadError, match="schedule_id"):
        await run(db, job)
    db.change("UPDATE schedules SET payload = ? WHERE id = ?", '{"prompt": "genai"}', made.id)
    db.clock.advance(HOUR)
    with pytest.raises(FailJobError, match="no prompt that is known here"):
        await run(db, await fire(db))


@pytest.mark.parametrize("table", ["participant_addresses", "conversation_participants"])
async def test_someone_who_cannot_be_reached_fails_the_job_for_good(db: Database, table: str) -> None:
    """Trying again would change nothing."""
    await scheduled(db)
    db.clock.advance(HOUR)
    job = await fire(db)
    db.change(f"DELETE FROM {table}")
    with pytest.raises(FailJobError, match="there is no"):
        await run(db, job)
