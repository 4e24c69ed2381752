"""Enrolling people, finding them, and changing what is known of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from promptpipe.model.errors import AlreadyExistsError, NotFoundError
from promptpipe.model.events import Enrolled
from promptpipe.model.ids import ParticipantId
from promptpipe.model.leases import Work
from promptpipe.model.participants import ParticipantStatus, Profile
from tests.support.people import ADA, BOB, ENROLLMENT, batch, inbound, phone

if TYPE_CHECKING:
    from tests.support.database import Database

PROFILE = Profile(name="Ada", gender="f", ethnicity="x", background="likes tea", timezone="Europe/Berlin")


async def test_enrolled_person_has_a_state_a_handler_and_an_event_that_says_so(db: Database) -> None:
    """The flow greets them: it is woken by the commit that enrolled them."""
    person = await db.store.participants.enroll(phone(ADA), PROFILE, ENROLLMENT)
    assert (person.status, person.channel, person.addresses) == (ParticipantStatus.ACTIVE, "whatsapp", (phone(ADA),))
    assert (person.name, person.gender, person.ethnicity) == ("Ada", "f", "x")
    assert (person.background, person.timezone) == ("likes tea", "Europe/Berlin")
    assert (person.created_at, person.updated_at) == (db.clock.now(), db.clock.now())
    assert db.runners.woken[-1] is Work.MAILBOX
    [delivery] = (await db.store.mailboxes.claim(db.claim())).items
    assert delivery.event.event == Enrolled(flow_type="echo")
    assert (delivery.states["echo"].current_state, delivery.states["echo"].version) == ("ACTIVE", 1)
    assert [hook.handler_type for hook in delivery.hooks] == ["echo"]


async def test_number_is_enrolled_once(db: Database) -> None:
    """Whoever has it is named; nothing of the second enrollment is kept."""
    first = await db.store.participants.enroll(phone(ADA), PROFILE, ENROLLMENT)
    with pytest.raises(AlreadyExistsError) as raised:
        await db.store.participants.enroll(phone(ADA), Profile(name="Eve"), ENROLLMENT)
    assert (raised.value.resource, raised.value.name) == ("participant", first.id)
    assert db.rows("SELECT count(*) FROM conversation_participants") == [(1,)]
    assert db.rows("SELECT count(*) FROM mailbox_events") == [(1,)]


async def test_person_who_wrote_first_cannot_be_enrolled_again(db: Database) -> None:
    """Enrollment by webhook and by operator meet in the same address."""
    await db.store.inbound.ingest(batch(inbound("hi", ADA)), ENROLLMENT)
    with pytest.raises(AlreadyExistsError):
        await db.store.participants.enroll(phone(ADA), PROFILE, ENROLLMENT)


async def test_person_is_found_by_number(db: Database) -> None:
    """The one who has it, or nobody."""
    ada = await db.store.participants.enroll(phone(ADA), PROFILE, ENROLLMENT)
    assert (await db.store.participants.find(phone(ADA))).id == ada.id
    with pytest.raises(NotFoundError) as raised:
        await db.store.participants.find(phone(BOB))
    assert (raised.value.resource, raised.value.name) == ("participant", BOB)


async def test_update_changes_what_it_names_and_nothing_else(db: Database) -> None:
    """None forgets; an absent field stays."""
    ada = await db.store.participants.enroll(phone(ADA), PROFILE, ENROLLMENT)
    db.clock.advance(5)
    changed = await db.store.participants.update(ada.id, {"name": "Ada L.", "gender": None}, None)
    assert (changed.name, changed.gender, changed.ethnicity) == ("Ada L.", None, "x")
    assert (changed.status, changed.timezone) == (ParticipantStatus.ACTIVE, "Europe/Berlin")
    assert (changed.created_at, changed.updated_at) == (ada.created_at, db.clock.now())
    paused = await db.store.participants.update(ada.id, {}, ParticipantStatus.PAUSED)
    assert (paused.status, paused.name) == (ParticipantStatus.PAUSED, "Ada L.")
    assert await db.store.participants.get(ada.id) == paused


async def test_nobody_cannot_be_updated(db: Database) -> None:
    """An id that nobody has is said to be one."""
    with pytest.raises(NotFoundError):
        await db.store.participants.update(ParticipantId("nobody"), {"name": "x"}, None)
