"""Schedules as operators and other services see them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from promptpipe.model.errors import NotFoundError
from promptpipe.model.ids import ScheduleId
from promptpipe.model.prompts import SCHEDULED_PROMPT, prompt_payload
from promptpipe.model.schedules import Misfire, NewSchedule

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptpipe.model.ids import ParticipantId
    from promptpipe.model.listing import Page, PageRequest
    from promptpipe.model.prompts import Prompt
    from promptpipe.model.recurrence import Recurrence
    from promptpipe.model.schedules import Schedule
    from promptpipe.ports.schedules import ScheduleStore
    from promptpipe.ports.store import ParticipantStore
    from promptpipe.services.prompts import PromptRules


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRequest:
    """A prompt that somebody asks for, again and again.

    *timezone* overrides the zone of *recurrence*; without it, it is the participant's, or else UTC.
    """

    participant_id: ParticipantId
    prompt: Prompt
    recurrence: Recurrence
    timezone: str | None = None
    misfire: Misfire = Misfire.RUN


class Schedules:
    """Recurring prompts."""

    def __init__(
        self, store: ScheduleStore, participants: ParticipantStore, rules: PromptRules, new_id: Callable[[], str]
    ) -> None:
        self._store = store
        self._participants = participants
        self._rules = rules
        self._new_id = new_id

    async def prompt(self, request: PromptRequest) -> Schedule:
        """Make a schedule that prompts a participant; raise `InvalidArgumentError` and `NotFoundError`."""
        self._rules.check(request.prompt)
        person = await self._participants.get(request.participant_id)
        zone = request.timezone or person.timezone or request.recurrence.zone
        recurrence = replace(request.recurrence, zone=zone)
        recurrence.check()
        new = NewSchedule(
            id=ScheduleId(self._new_id()),
            kind=SCHEDULED_PROMPT,
            recurrence=recurrence,
            payload=prompt_payload(request.prompt),
            participant_id=person.id,
            misfire=request.misfire,
        )
        return await self._store.create(new)

    async def get(self, schedule_id: ScheduleId) -> Schedule:
        """Return a schedule; raise `NotFoundError`."""
        return await self._store.get(schedule_id)

    async def list(self, participant_id: ParticipantId | None, page: PageRequest) -> Page[Schedule]:
        """Return schedules, the newest first."""
        return await self._store.list(participant_id, page)

    async def pause(self, schedule_id: ScheduleId) -> Schedule:
        """See `ScheduleStore.pause`."""
        return await self._store.pause(schedule_id)

    async def resume(self, schedule_id: ScheduleId) -> Schedule:
        """See `ScheduleStore.resume`."""
        return await self._store.resume(schedule_id)

    async def delete(self, schedule_id: ScheduleId) -> None:
        """End a schedule; raise `NotFoundError`."""
        if not await self._store.delete(schedule_id):
            raise NotFoundError("schedule", schedule_id)
