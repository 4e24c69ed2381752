"""The recoverable of flows whose state says when their timers are due."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from promptpipe.model.ids import JobId
from promptpipe.model.jobs import NewJob
from promptpipe.recovery import RecoveryRegistry, ResponseHandlerRecoveryInfo, TimedFlowRecovery, TimerRecoveryInfo
from tests.support.people import ADA, BOB, enroll

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptpipe.model.ids import ParticipantId
    from tests.support.database import Database

CARL, DORA = "+16505550003", "+16505550004"


def due(data: Mapping[str, object]) -> datetime | None:
    text = data.get("due")
    return None if text is None else datetime.fromisoformat(str(text))


class Watched:
    """A registry whose ways to restore things only keep what they are asked for."""

    def __init__(self, db: Database) -> None:
        self.registry = RecoveryRegistry(db.store.recovery, db.clock)
        self.registry.register_timer_recovery(self._timer)
        self.registry.register_handler_recovery(self._handler)
        self.timers: dict[ParticipantId, tuple[str, str, float | None]] = {}
        self.handlers: list[ResponseHandlerRecoveryInfo] = []

    async def _timer(self, info: TimerRecoveryInfo, remaining: float | None) -> bool:
        self.timers[info.lost.participant_id] = (info.flow_type, info.data_key, remaining)
        return True

    async def _handler(self, info: ResponseHandlerRecoveryInfo) -> bool:
        self.handlers.append(info)
        return True


async def remember(db: Database, person: ParticipantId, **data: str) -> None:
    db.change("UPDATE flow_states SET state_data = ? WHERE participant_id = ?", json.dumps(data), person)


async def test_timers_and_handlers_are_asked_for_again(db: Database) -> None:
    """With what is left by the state, or to be forgotten; a state that makes no sense fails alone."""
    ada, bob, carl, dora = [await enroll(db, number) for number in (ADA, BOB, CARL, DORA)]
    in_an_hour = db.clock.now() + timedelta(hours=1)
    await remember(db, ada, timer="gone", due=in_an_hour.isoformat())
    await remember(db, bob, timer="gone", due="soon")
    ended = JobId(db.new_id())
    await db.store.jobs.enqueue(NewJob(id=ended, kind="t", run_at=in_an_hour, participant_id=carl))
    await db.store.jobs.cancel(ended)
    await remember(db, carl, timer=ended, due=in_an_hour.isoformat())
    await remember(db, dora, timer="gone")
    db.change("DELETE FROM registered_hooks WHERE participant_id = ?", ada)
    watched = Watched(db)
    await TimedFlowRecovery("echo", "echo", {"timer": due}).recover_state(watched.registry)
    asked = {person: ("echo", "timer", left) for person, left in ((ada, 3600.0), (carl, None), (dora, None))}
    assert watched.timers == asked
    assert watched.handlers == [ResponseHandlerRecoveryInfo(participant_id=ada, flow_type="echo", handler_type="echo")]
    tally = watched.registry.tally
    assert (tally.checked, tally.restored, [subject for subject, _ in tally.failures]) == (4, 4, [bob])


async def test_one_participant_is_recovered_alone(db: Database) -> None:
    """The others are not looked at."""
    people = [await enroll(db, number) for number in (ADA, BOB, CARL)]
    for person in people:
        await remember(db, person, timer="gone")
    db.change("DELETE FROM registered_hooks")
    watched = Watched(db)
    await TimedFlowRecovery("echo", "echo", {"timer": due}).recover_participant(people[1], watched.registry)
    assert [info.participant_id for info in watched.handlers] == [*watched.timers] == [people[1]]
