"""Enrolling people and changing what is known of them."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from promptpipe.model.participants import Profile
from promptpipe.services import checks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptpipe.model.ids import ParticipantId
    from promptpipe.model.inbound import Enrollment
    from promptpipe.model.listing import Page, PageRequest
    from promptpipe.model.participants import Participant, ParticipantStatus
    from promptpipe.ports.store import ParticipantStore

_LONGEST = {"name": 200, "gender": 200, "ethnicity": 200, "background": 4000}


class Participants:
    """People on *channel*; whoever is enrolled begins as *enrollment* says."""

    def __init__(self, store: ParticipantStore, channel: str, enrollment: Enrollment) -> None:
        self._store = store
        self._channel = channel
        self._enrollment = enrollment

    async def enroll(self, phone_number: str, profile: Mapping[str, str | None]) -> Participant:
        """Enroll a person, and let the flow greet them; raise `AlreadyExistsError` when somebody has the number."""
        address = checks.phone("phone_number", phone_number, self._channel)
        return await self._store.enroll(address, Profile(**_checked(profile)), self._enrollment)

    async def get(self, participant_id: ParticipantId) -> Participant:
        """Return a participant; raise `NotFoundError`."""
        return await self._store.get(participant_id)

    async def with_number(self, field: str, phone_number: str) -> Participant:
        """Return the participant who has a number, given as *field*; raise `NotFoundError`."""
        return await self._store.find(checks.phone(field, phone_number, self._channel))

    async def list(self, status: ParticipantStatus | None, page: PageRequest) -> Page[Participant]:
        """Return participants, the newest first."""
        return await self._store.list(status, page)

    async def update(
        self,
        participant_id: ParticipantId,
        profile: Mapping[str, str | None],
        status: ParticipantStatus | None,
    ) -> Participant:
        """Change the fields of `Profile` that are in *profile* (empty: forget), and the status if given."""
        return await self._store.update(participant_id, _checked(profile), status)

    async def erase(self, participant_id: ParticipantId) -> None:
        """See `ParticipantStore.erase`."""
        await self._store.erase(participant_id)


def _checked(profile: Mapping[str, str | None]) -> dict[str, str | None]:
    checked: dict[str, str | None] = {}
    for field in fields(Profile):
        if field.name not in profile:
            continue
        value = profile[field.name]
        if not value:
            checked[field.name] = None
        elif field.name == "timezone":
            checked[field.name] = checks.timezone(field.name, value)
        else:
            checked[field.name] = checks.text(field.name, value, longest=_LONGEST[field.name])
    return checked
