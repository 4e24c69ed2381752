"""What the jobs of schedules that prompt do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pydantic import AwareDatetime  # noqa: TC002  which reads this annotation

from promptpipe.model.errors import FailJobError, NotFoundError
from promptpipe.model.ids import MessageId, ScheduleId
from promptpipe.model.messages import MessageClass, NewMessage, Text
from promptpipe.model.prompts import SCHEDULED_PROMPT, StaticPrompt, prompt_in
from promptpipe.ports.jobs import JobKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from promptpipe.model.jobs import Job
    from promptpipe.model.schedules import Schedule
    from promptpipe.ports.store import Store

LONGEST_LIFE = timedelta(hours=12)
"""For which a prompt makes sense that could not be sent, if no other comes first."""


@dataclass(frozen=True, slots=True)
class Firing:
    """What a job says of the schedule that made it."""

    schedule_id: str
    version: int
    occurrence: AwareDatetime


class ScheduledPrompts:
    """What `scheduled_prompt` jobs do. However often one runs, its prompt is enqueued once."""

    def __init__(self, store: Store, new_id: Callable[[], str]) -> None:
        self._store = store
        self._new_id = new_id
        self.kind = JobKind(name=SCHEDULED_PROMPT, run=self._run, payload=Firing)

    async def _run(self, job: Job, firing: Firing) -> None:
        """Prompt the schedule's participant, unless the schedule was deleted, paused or edited since it fired.

        Raise `FailJobError` for a schedule that says nothing, and for someone who is gone or cannot be reached.
        """
        try:
            schedule = await self._store.schedules.get(ScheduleId(firing.schedule_id))
        except NotFoundError:
            return
        if schedule.paused or schedule.version != firing.version:
            return
        try:
            await self._prompt(schedule, firing.occurrence, job.created_at)
        except NotFoundError as error:
            raise FailJobError(str(error)) from error

    async def _prompt(self, schedule: Schedule, occurrence: datetime, fired_at: datetime) -> None:
        prompt = prompt_in(schedule.payload)
        if not isinstance(prompt, StaticPrompt) or schedule.participant_id is None:
            raise FailJobError(f"the schedule {schedule.id} has no prompt that is known here, or nobody to prompt")
        person = await self._store.participants.get(schedule.participant_id)
        if not person.active:
            return
        new = NewMessage(
            id=MessageId(self._new_id()),
            participant_id=person.id,
            channel=person.channel,
            content=Text(prompt.body),
            message_class=MessageClass.BROADCAST,
            dedupe_key=f"schedule:{schedule.id}:{occurrence:%Y-%m-%dT%H:%M}Z",
            expires_at=_expiry(schedule, occurrence, fired_at),
        )
        await self._store.outbox.enqueue(new)


def _expiry(schedule: Schedule, occurrence: datetime, fired_at: datetime) -> datetime:
    """Return when the prompt no longer makes sense. A time that was missed lives from when it was made up for."""
    longest = max(occurrence, fired_at) + LONGEST_LIFE
    following = schedule.recurrence.next_after(occurrence)
    return longest if following is None else min(following, longest)
