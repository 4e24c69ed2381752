"""Storage of schedules. What `ports.store` says of its methods holds for these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from promptpipe.model.ids import ParticipantId, ScheduleId
    from promptpipe.model.listing import Page, PageRequest
    from promptpipe.model.schedules import Fired, NewSchedule, Schedule, ScheduleEdit


class ScheduleStore(Protocol):
    """Recurring rules that make jobs. Whatever happens to one, no time of it makes a job twice."""

    async def create(self, new: NewSchedule) -> Schedule:
        """Add a schedule; return it, or the one with its id."""
        ...

    async def get(self, schedule_id: ScheduleId) -> Schedule:
        """Return a schedule; raise `NotFoundError`."""
        ...

    async def list(self, participant_id: ParticipantId | None, page: PageRequest) -> Page[Schedule]:
        """Return schedules, the newest first; only one participant's, if given."""
        ...

    async def update(self, schedule_id: ScheduleId, version: int, edit: ScheduleEdit) -> Schedule:
        """Edit the *version* of a schedule, and return the next one.

        With another rule it goes on with that one's next time: what was due by the old one is not made up for. Raise
        `NotFoundError`, and `PreconditionError` when it was edited by others.
        """
        ...

    async def pause(self, schedule_id: ScheduleId) -> Schedule:
        """Let its times pass until it is resumed; raise `NotFoundError`."""
        ...

    async def resume(self, schedule_id: ScheduleId) -> Schedule:
        """Let a paused schedule go on with its next time from now; raise `NotFoundError`."""
        ...

    async def delete(self, schedule_id: ScheduleId) -> bool:
        """End a schedule, and return whether it was there.

        What it made for a participant and nobody has handled yet ends with it, as it does when it is edited or paused.
        """
        ...

    async def fire(self, limit: int) -> Fired:
        """Let up to *limit* schedules whose time has come make a job each, and go on to their next time.

        A job has the dedupe key `schedule:{id}:{occurrence}` and carries `schedule_id`, `version`, `occurrence`
        (`2026-03-01T09:00Z`) and `expires_at` in its payload. Missed times follow the schedule's `Misfire`.
        """
        ...
