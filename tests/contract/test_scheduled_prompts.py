"""What schedules say: once for each of their times, and not when nobody wants it any more."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from promptpipe.model.decisions import Decided
from promptpipe.model.errors import FlowError
from promptpipe.model.ids import JobId, ParticipantId
from promptpipe.model.jobs import Ending, Fire, NewJob
from promptpipe.model.listing import JobFilter, MessageFilter, PageRequest
from promptpipe.model.messages import MessageClass, Text
from promptpipe.model.participants import ParticipantStatus
from promptpipe.model.prompts import StaticPrompt, prompt_payload
from promptpipe.model.recurrence import Recurrence
from promptpipe.model.schedules import Misfire, Schedule, ScheduleEdit
from promptpipe.services.prompts import PromptRules
from promptpipe.services.schedules import PromptRequest, Schedules
from tests.support.people import enroll
from tests.support.prompting import NotingFlow
from tests.support.work import Working

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from promptpipe.model.messages import OutboxMessage
    from tests.support.database import Database

# The clock of the tests starts on Sunday, 1 March 2026, at 12:00 UTC.
AT_ONE = Recurrence(hour=13, minute=0)
HOUR, DAY = 3600.0, 86_400.0


async def scheduled(db: Database, recurrence: Recurrence = AT_ONE) -> Schedule:
    person = await enroll(db)
    rules = PromptRules((), has_model=False)
    service = Schedules(db.store.schedules, db.store.participants, rules, db.new_id)
    request = PromptRequest(participant_id=person, prompt=StaticPrompt("stretch"), recurrence=recurrence)
    return await service.prompt(request)


async def messages(db: Database) -> list[OutboxMessage]:
    return list((await db.store.outbox.list(MessageFilter(), PageRequest(size=9))).items)


async def test_each_time_says_it_once(db: Database) -> None:
    """As a broadcast, which an answer may overtake; the flow hears of it."""
    made = await scheduled(db)
    working = Working(db, [NotingFlow()])
    assert await working.everything() == []
    db.clock.advance(HOUR)
    assert await working.everything() == ["stretch"]
    [message] = await messages(db)
    assert (message.participant_id, message.content) == (made.participant_id, Text("stretch"))
    assert (message.message_class, message.channel) == (MessageClass.BROADCAST, "whatsapp")
    state = await db.store.participants.flow_state(message.participant_id, "echo")
    assert state.data["heard"] == ["prompted: stretch", "sent"]
    assert await working.everything() == []
    db.clock.advance(DAY)
    assert await working.everything() == ["stretch"]


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
    working = Working(db, [NotingFlow()])
    await working.fire()
    db.clock.advance(1)
    await working.everything()
    assert (await messages(db))[-1].expires_at == occurrence + expires_after


async def change(db: Database, made: Schedule, how: str) -> None:
    edit = ScheduleEdit(recurrence=AT_ONE, payload=prompt_payload(StaticPrompt("breathe")), misfire=Misfire.RUN)
    changes: dict[str, Callable[[], Awaitable[object]]] = {
        "delete": lambda: db.store.schedules.delete(made.id),
        "pause": lambda: db.store.schedules.pause(made.id),
        "edit": lambda: db.store.schedules.update(made.id, 1, edit),
    }
    await changes[how]()


@pytest.mark.parametrize("how", ["delete", "pause", "edit"])
@pytest.mark.parametrize("moment", ["job queued", "job held", "event waiting", "event held"])
async def test_prompt_of_a_schedule_that_was_changed_since_is_not_sent(db: Database, how: str, moment: str) -> None:
    """Nobody is prompted by what was deleted, paused or edited, however far it had come, if it was not sent yet."""
    made = await scheduled(db)
    working = Working(db, [NotingFlow()])
    db.clock.advance(HOUR)
    assert await working.fire() == 1
    if moment == "job held":
        claimed = await db.store.jobs.claim(db.claim())
        await change(db, made, how)
        assert len(await db.store.jobs.finish([Ending(claimed.items[0].lease, Fire())])) == 1
    elif moment == "event held":
        await working.run_jobs()
        [delivery] = (await db.store.mailboxes.claim(db.claim())).items
        await change(db, made, how)
        decision = await working.conversations.decide(delivery)
        assert await db.store.mailboxes.decide([Decided(delivery, decision, None)]) == [None]
    else:
        if moment == "event waiting":
            await working.run_jobs()
        await change(db, made, how)
    assert await working.everything() == []
    assert await messages(db) == []


async def test_another_ones_prompt_still_is(db: Database) -> None:
    """A schedule takes back what it made, and nothing else."""
    made, kept = await scheduled(db), None
    person = made.participant_id or ParticipantId("")
    rules = PromptRules((), has_model=False)
    service = Schedules(db.store.schedules, db.store.participants, rules, db.new_id)
    kept = await service.prompt(PromptRequest(participant_id=person, prompt=StaticPrompt("kept"), recurrence=AT_ONE))
    working = Working(db, [NotingFlow()])
    db.clock.advance(HOUR)
    await working.fire()
    assert await db.store.schedules.delete(made.id)
    assert await working.everything() == ["kept"]
    assert (await db.store.schedules.get(kept.id)).version == 1


@pytest.mark.parametrize("status", [status for status in ParticipantStatus if status is not ParticipantStatus.ACTIVE])
async def test_someone_who_is_not_active_any_more_is_not_prompted(db: Database, status: ParticipantStatus) -> None:
    """Whatever fired before."""
    made = await scheduled(db)
    working = Working(db, [NotingFlow()])
    db.clock.advance(HOUR)
    await working.fire()
    await db.store.participants.update(made.participant_id or ParticipantId(""), {}, status)
    assert await working.everything() == []
    assert await messages(db) == []


async def test_timer_without_a_prompt_is_no_prompt(db: Database) -> None:
    """Somebody enqueued it by hand."""
    person = await enroll(db)
    new = NewJob(id=JobId(db.new_id()), kind="scheduled_prompt", run_at=db.clock.now(), participant_id=person)
    await db.store.jobs.enqueue(new)
    with pytest.raises(FlowError, match="nothing that this version knows"):
        await Working(db, [NotingFlow()]).everything()


async def test_spread_puts_each_time_off_by_chance(db: Database) -> None:
    """By whole minutes within it, another number each day, and the same when it is looked at again."""
    made = await scheduled(db)
    edit = ScheduleEdit(
        recurrence=AT_ONE,
        payload=prompt_payload(StaticPrompt("stretch")),
        misfire=Misfire.RUN,
        spread=timedelta(hours=2),
    )
    assert (await db.store.schedules.update(made.id, 1, edit)).spread == timedelta(hours=2)
    delays = []
    for day in range(20):
        occurrence = db.clock.now() + timedelta(hours=1)
        db.clock.advance(HOUR)
        await db.store.schedules.fire(10)
        [job] = (await db.store.jobs.list(JobFilter(), PageRequest(size=1))).items
        delay = job.run_at - occurrence
        assert timedelta(0) <= delay <= timedelta(hours=2), day
        assert delay.seconds % 60 == 0
        expires_at = str(job.payload["expires_at"])
        assert expires_at == (job.run_at + timedelta(hours=12)).isoformat()
        delays.append(delay)
        db.clock.advance(DAY - HOUR)
    assert len(set(delays)) > 10
    assert max(delays) > timedelta(minutes=90)
    assert min(delays) < timedelta(minutes=30)
