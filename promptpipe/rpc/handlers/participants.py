"""`ParticipantService`."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from promptpipe.model.ids import ParticipantId
from promptpipe.model.participants import ParticipantStatus, Profile
from promptpipe.rpc import convert
from promptpipe.rpc.handlers.choices import exactly_one
from promptpipe.rpc.paging import next_page_token, page_request
from promptpipe.rpc.pb.promptpipe import v1

if TYPE_CHECKING:
    from promptpipe.services.participants import Participants


class ParticipantHandlers(v1.ParticipantServiceBase):
    """See `participants.proto`."""

    def __init__(self, participants: Participants) -> None:
        self._participants = participants

    async def enroll_participant(self, message: v1.EnrollParticipantRequest) -> v1.EnrollParticipantResponse:
        """Enroll a person."""
        person = await self._participants.enroll(message.phone_number, _profile(message))
        return v1.EnrollParticipantResponse(participant=convert.participant(person))

    async def get_participant(self, message: v1.GetParticipantRequest) -> v1.GetParticipantResponse:
        """Return a participant, by id or number."""
        if exactly_one(message, "participant_id", "phone_number") == "participant_id":
            person = await self._participants.get(ParticipantId(message.participant_id or ""))
        else:
            person = await self._participants.with_number("phone_number", message.phone_number or "")
        return v1.GetParticipantResponse(participant=convert.participant(person))

    async def list_participants(self, message: v1.ListParticipantsRequest) -> v1.ListParticipantsResponse:
        """List participants."""
        status = convert.enum_value("status", message.status, ParticipantStatus)
        page = await self._participants.list(status, page_request(message))
        return v1.ListParticipantsResponse(
            participants=[convert.participant(person) for person in page.items],
            next_page_token=next_page_token(message, page),
        )

    async def update_participant(self, message: v1.UpdateParticipantRequest) -> v1.UpdateParticipantResponse:
        """Change what is present."""
        status = convert.enum_value("status", message.status, ParticipantStatus)
        person = await self._participants.update(ParticipantId(message.participant_id), _profile(message), status)
        return v1.UpdateParticipantResponse(participant=convert.participant(person))

    async def delete_participant(self, message: v1.DeleteParticipantRequest) -> v1.DeleteParticipantResponse:
        """Erase a person."""
        await self._participants.erase(ParticipantId(message.participant_id))
        return v1.DeleteParticipantResponse()


def _profile(message: v1.EnrollParticipantRequest | v1.UpdateParticipantRequest) -> dict[str, str | None]:
    """Return the fields of a profile that are present."""
    values = {field.name: getattr(message, field.name) for field in fields(Profile)}
    return {name: value for name, value in values.items() if value is not None}
