"""ParticipantService."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from grpclib.const import Status

from promptpipe.client import v1
from tests.support.admin import ADA, BOB, open_admin, reason, refused, resource, violation

if TYPE_CHECKING:
    from tests.support.service import Home


async def test_enrolled_participant_is_returned_by_id_and_by_number(home: Home) -> None:
    """However the number was written, it is one number."""
    async with open_admin(home) as admin:
        profile = {"name": "Ada", "gender": "f", "ethnicity": "x", "background": "tea", "timezone": "America/Toronto"}
        ada = await admin.enroll("+1 (650) 555-1234", **profile)
        assert (ada.status, ada.phone_number, ada.channel) == (v1.ParticipantStatus.ACTIVE, ADA, "whatsapp")
        assert {name: getattr(ada, name) for name in profile} == profile
        assert [(item.channel, item.kind, item.value) for item in ada.addresses] == [("whatsapp", "phone", ADA)]
        for request in (
            v1.GetParticipantRequest(participant_id=ada.id),
            v1.GetParticipantRequest(phone_number="16505551234"),
        ):
            assert (await admin.participants.get_participant(request)).participant == ada


async def test_second_enrollment_names_the_first(home: Home) -> None:
    """ALREADY_EXISTS with the id in its details."""
    async with open_admin(home) as admin:
        ada = await admin.enroll()
        request = v1.EnrollParticipantRequest(phone_number=ADA)
        error = await refused(admin.participants.enroll_participant(request), Status.ALREADY_EXISTS)
        assert (resource(error), reason(error)) == (("participant", ada.id), "ALREADY_EXISTS")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("phone_number", ""),
        ("phone_number", "12345"),
        ("phone_number", "+1234567890123456"),
        ("phone_number", "+1650555CALL"),
        ("phone_number", "+１６５０５５５１２３４"),
        ("name", "x" * 201),
        ("name", "a\x00b"),
        ("gender", "x" * 201),
        ("ethnicity", "x" * 201),
        ("background", "x" * 4001),
        ("timezone", "Mars/Olympus"),
        ("timezone", "../../etc/passwd"),
        ("timezone", "\x00"),
        ("timezone", "x" * 5000),
    ],
)
async def test_bad_value_is_refused_by_name(home: Home, field: str, value: str) -> None:
    """INVALID_ARGUMENT says which field, and which rule; nothing was enrolled."""
    async with open_admin(home) as admin:
        values = {"phone_number": ADA, field: value}
        call = admin.participants.enroll_participant(v1.EnrollParticipantRequest(**values))
        named, rule = violation(await refused(call, Status.INVALID_ARGUMENT))
        assert named == field
        assert rule.startswith("must")
        assert (await admin.participants.list_participants(v1.ListParticipantsRequest())).participants == []


@pytest.mark.parametrize("keys", [{}, {"participant_id": "a", "phone_number": ADA}])
async def test_exactly_one_key_is_needed(home: Home, keys: dict[str, str]) -> None:
    """None, or both, is a question that has no answer."""
    async with open_admin(home) as admin:
        call = admin.participants.get_participant(v1.GetParticipantRequest(**keys))
        field, rule = violation(await refused(call, Status.INVALID_ARGUMENT))
        assert (field, "phone_number" in rule) == ("participant_id", True)


async def test_unknown_participants_are_not_found(home: Home) -> None:
    """By id, by number, for a change."""
    async with open_admin(home) as admin:
        by_id = admin.participants.get_participant(v1.GetParticipantRequest(participant_id="nobody"))
        assert resource(await refused(by_id, Status.NOT_FOUND)) == ("participant", "nobody")
        by_number = admin.participants.get_participant(v1.GetParticipantRequest(phone_number=BOB))
        assert resource(await refused(by_number, Status.NOT_FOUND)) == ("participant", BOB)
        change = admin.participants.update_participant(v1.UpdateParticipantRequest(participant_id="nobody", name="x"))
        assert resource(await refused(change, Status.NOT_FOUND)) == ("participant", "nobody")


async def test_update_changes_present_fields_only(home: Home) -> None:
    """Present and empty forgets; absent stays."""
    async with open_admin(home) as admin:
        ada = await admin.enroll(name="Ada", gender="f", timezone="UTC")
        request = v1.UpdateParticipantRequest(
            participant_id=ada.id, name="Ada L.", gender="", status=v1.ParticipantStatus.PAUSED
        )
        changed = (await admin.participants.update_participant(request)).participant
        assert changed is not None
        assert (changed.name, changed.gender, changed.timezone) == ("Ada L.", "", "UTC")
        assert changed.status is v1.ParticipantStatus.PAUSED
        bad = v1.UpdateParticipantRequest(participant_id=ada.id, timezone="Nowhere")
        error = await refused(admin.participants.update_participant(bad), Status.INVALID_ARGUMENT)
        assert violation(error)[0] == "timezone"


async def test_list_goes_on_where_the_page_before_ended(home: Home) -> None:
    """The newest first; the last page has no token."""
    async with open_admin(home) as admin:
        ids = [(await admin.enroll(f"+4917000000{n}")).id for n in range(3)]
        first = await admin.participants.list_participants(v1.ListParticipantsRequest(page_size=2))
        assert [person.id for person in first.participants] == [ids[2], ids[1]]
        request = v1.ListParticipantsRequest(page_size=2, page_token=first.next_page_token)
        second = await admin.participants.list_participants(request)
        assert ([person.id for person in second.participants], second.next_page_token) == ([ids[0]], "")


async def test_list_by_status(home: Home) -> None:
    """An unspecified status is any; one that does not exist is refused."""
    async with open_admin(home) as admin:
        ada, bob = await admin.enroll(ADA), await admin.enroll(BOB)
        paused = v1.UpdateParticipantRequest(participant_id=bob.id, status=v1.ParticipantStatus.PAUSED)
        await admin.participants.update_participant(paused)

        async def listed(status: v1.ParticipantStatus) -> list[str]:
            answer = await admin.participants.list_participants(v1.ListParticipantsRequest(status=status))
            return [person.id for person in answer.participants]

        assert await listed(v1.ParticipantStatus.PAUSED) == [bob.id]
        assert await listed(v1.ParticipantStatus.STATUS_UNSPECIFIED) == [bob.id, ada.id]
        error = await refused(listed(v1.ParticipantStatus(99)), Status.INVALID_ARGUMENT)
        assert violation(error) == ("status", "must be one of: ACTIVE, PAUSED, COMPLETED, WITHDRAWN")


async def test_deleted_participant_is_gone(home: Home) -> None:
    """Their number is free; asked for again, it was done; nobody is not somebody."""
    async with open_admin(home) as admin:
        ada, bob = await admin.enroll(), await admin.enroll(BOB)
        for _ in range(2):
            await admin.participants.delete_participant(v1.DeleteParticipantRequest(participant_id=ada.id))
        await refused(admin.participants.get_participant(v1.GetParticipantRequest(phone_number=ADA)), Status.NOT_FOUND)
        listed = await admin.participants.list_participants(v1.ListParticipantsRequest())
        assert [person.id for person in listed.participants] == [bob.id]
        assert (await admin.enroll()).id != ada.id
        unknown = v1.DeleteParticipantRequest(participant_id="nobody")
        error = await refused(admin.participants.delete_participant(unknown), Status.NOT_FOUND)
        assert resource(error) == ("participant", "nobody")
