"""What webhooks bring: acknowledged means kept, and once."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import trio

from promptpipe.model.events import Replied
from promptpipe.model.inbound import InboundOther, IngestReport
from promptpipe.model.messages import MessageStatus
from promptpipe.model.participants import Address, AddressKind
from tests.support.people import ADA, BOB, ENROLLMENT, NUMBER_ID, batch, inbound, phone, receipt

if TYPE_CHECKING:
    from promptpipe.model.inbound import Update
    from tests.support.database import Database

ADAS_ID = Address("whatsapp", AddressKind.USER_ID, "US.13491208655302741918")


async def ingest(db: Database, *updates: Update) -> IngestReport:
    return await db.store.inbound.ingest(batch(*updates), ENROLLMENT)


async def events(db: Database) -> list[Replied]:
    """Return the replies at the heads of all mailboxes."""
    claimed = await db.store.mailboxes.claim(db.claim())
    return [item.event.event for item in claimed.items if isinstance(item.event.event, Replied)]


async def test_first_message_enrolls_stores_and_appends_in_one_commit(db: Database) -> None:
    """Person, address, flow state, response handler, response and event are there together."""
    assert await ingest(db, inbound("hello", sender_name="Ada")) == IngestReport(stored=1, enrolled=1)
    [delivery] = (await db.store.mailboxes.claim(db.claim())).items
    person = delivery.participant
    assert (person.name, person.addresses, person.channel) == ("Ada", (phone(ADA),), "whatsapp")
    assert (delivery.states["echo"].current_state, delivery.states["echo"].version) == ("ACTIVE", 1)
    assert [hook.handler_type for hook in delivery.hooks] == ["echo"]
    rows = db.rows("SELECT participant_id, sender, type, text, processed_at FROM responses")
    assert rows == [(person.id, ADA, "text", "hello", None)]


async def test_repeated_message_has_no_second_effect(db: Database) -> None:
    """The same provider id, in one request or in many, is one event."""
    message = inbound("hello")
    assert await ingest(db, message, message) == IngestReport(stored=1, duplicates=1, enrolled=1)
    assert await ingest(db, message) == IngestReport(duplicates=1)
    assert db.rows("SELECT count(*) FROM mailbox_events") == [(1,)]


async def test_same_message_from_many_connections_is_one_event(db: Database) -> None:
    """Whoever commits first wins; the others see a duplicate."""
    reports: list[IngestReport] = []

    async def post(message: Update) -> None:
        reports.append(await ingest(db, message))

    message = inbound("hello")
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(post, message)
    assert sum(report.stored for report in reports) == 1
    assert db.rows("SELECT count(*) FROM mailbox_events") == [(1,)]


async def test_messages_of_one_request_keep_their_order(db: Database) -> None:
    """Order of arrival is commit order, then position; the provider's time does not matter."""
    await ingest(db, *(inbound(str(number)) for number in range(5)))
    texts = [text for (text,) in db.rows("SELECT payload ->> 'text' FROM mailbox_events ORDER BY seq")]
    assert texts == ["0", "1", "2", "3", "4"]


async def test_race_to_enroll_the_same_number_enrolls_once(db: Database) -> None:
    """Two first messages at once are one person with two events."""
    async with trio.open_nursery() as nursery:
        for text in ("a", "b"):
            nursery.start_soon(ingest, db, inbound(text))
    assert db.rows("SELECT count(*) FROM conversation_participants") == [(1,)]
    assert db.rows("SELECT count(*) FROM mailbox_events") == [(2,)]


async def test_stranger_is_only_stored_without_auto_enrollment(db: Database) -> None:
    """Nothing is lost, and nobody is talked to who was not enrolled."""
    assert await db.store.inbound.ingest(batch(inbound("hello")), None) == IngestReport(stored=1)
    assert db.rows("SELECT participant_id, text FROM responses") == [(None, "hello")]
    assert await events(db) == []


async def test_what_is_no_conversation_enrolls_nobody(db: Database) -> None:
    """A reaction or a group message from a stranger is kept, no more."""
    await ingest(db, inbound("[reaction]", type="reaction", conversational=False))
    assert db.rows("SELECT count(*) FROM conversation_participants") == [(0,)]
    assert db.rows("SELECT type FROM responses") == [("reaction",)]


async def test_phone_and_user_id_are_one_person(db: Database) -> None:
    """A payload that shows both links them; afterwards either is enough."""
    await ingest(db, inbound("a"))
    await ingest(db, inbound("b", senders=(phone(ADA), ADAS_ID)))
    await ingest(db, inbound("c", senders=(ADAS_ID,)))
    assert db.rows("SELECT count(*) FROM conversation_participants") == [(1,)]
    [delivery] = (await db.store.mailboxes.claim(db.claim())).items
    assert set(delivery.participant.addresses) == {phone(ADA), ADAS_ID}


async def test_person_without_a_phone_number_is_written_to_by_user_id(db: Database) -> None:
    """Since 2026 the phone can be absent."""
    await ingest(db, inbound("a", senders=(ADAS_ID,)))
    [delivery] = (await db.store.mailboxes.claim(db.claim())).items
    assert delivery.participant.addresses == (ADAS_ID,)


@pytest.mark.parametrize("bad", [{"text": None}, {"text": "\ud800"}, {"provider_id": "\ud800"}])
async def test_one_bad_update_costs_the_others_nothing(db: Database, bad: dict[str, object]) -> None:
    """What cannot be stored as what it is, is stored raw; its neighbours are handled as ever."""
    spoiled = replace(inbound("spoiled", BOB, raw=b'{"bad":1}'), **bad)  # type: ignore[arg-type]
    report = await ingest(db, inbound("before"), spoiled, inbound("after"))
    assert (report.stored, report.unparsed) == (3, 1)
    assert db.rows("SELECT DISTINCT address FROM participant_addresses") == [(ADA,)]
    assert db.rows("SELECT count(*) FROM inbound_dedup WHERE kind = 'message'") == [(2,)]
    assert db.rows("SELECT type, raw FROM responses WHERE participant_id IS NULL") == [("unparsed", b'{"bad":1}')]
    assert [text for (text,) in db.rows("SELECT text FROM responses WHERE participant_id IS NOT NULL")] == [
        "before",
        "after",
    ]


async def test_other_updates_are_stored_raw_once(db: Database) -> None:
    """Shapes nobody knows are kept for whoever will."""
    other = InboundOther(channel="whatsapp", number_id=NUMBER_ID, key="k", type="account_update", raw=b"\x00\xff")
    assert await ingest(db, other, other) == IngestReport(stored=1, unparsed=1, duplicates=1)
    assert db.rows("SELECT type, raw FROM responses") == [("account_update", b"\x00\xff")]


async def test_same_id_for_another_number_is_another_message(db: Database) -> None:
    """Ids are unique per number only."""
    await ingest(db, inbound("a", provider_id="x"), inbound("b", provider_id="x", number_id="other"))
    assert db.rows("SELECT count(*) FROM responses") == [(2,)]


async def test_each_status_of_a_message_counts_once(db: Database) -> None:
    """The dedupe key of a status holds the status."""
    statuses = (MessageStatus.SENT, MessageStatus.DELIVERED, MessageStatus.SENT)
    report = await ingest(db, *(receipt(status) for status in statuses))
    assert report == IngestReport(stored=2, duplicates=1, unmatched=2)


async def test_reference_to_a_message_that_is_not_ours_is_kept(db: Database) -> None:
    """Somebody else's callback data, or a database restored from a backup: the receipt stays, nothing breaks."""
    report = await ingest(db, receipt(MessageStatus.SENT, reference=("nobody", 3)))
    assert report == IngestReport(stored=1, unmatched=1)


def everything(db: Database) -> dict[str, list[tuple[object, ...]]]:
    """Return all that webhooks leave behind, without ids of our own and times of ours."""
    person = (
        "(SELECT address FROM participant_addresses a WHERE a.participant_id = {}.participant_id AND kind = 'phone')"
    )
    return {
        "marks": db.rows("SELECT channel, number_id, kind, provider_id, status FROM inbound_dedup ORDER BY 3, 4, 5"),
        "responses": db.rows(
            f"SELECT {person.format('responses')}, number_id, message_id, sender, type, text, raw, provider_time"
            " FROM responses ORDER BY message_id, type"
        ),
        "events": db.rows(
            f"SELECT {person.format('mailbox_events')}, seq, kind, payload ->> 'text', payload ->> 'choice_id',"
            " payload ->> 'conversational', payload ->> 'said_at' FROM mailbox_events ORDER BY 1, 2"
        ),
        "people": db.rows("SELECT name, channel FROM conversation_participants ORDER BY name"),
        "addresses": db.rows("SELECT address, kind FROM participant_addresses ORDER BY address"),
    }


TABLES = (
    "inbound_dedup",
    "responses",
    "receipts",
    "parked_updates",
    "mailbox_events",
    "lanes",
    "registered_hooks",
    "flow_states",
    "participant_addresses",
    "conversation_participants",
)


@pytest.mark.parametrize("raw_of_one", [b"{}", b"\xff"])
async def test_request_with_many_updates_does_what_one_for_each_does(db: Database, raw_of_one: bytes) -> None:
    """Whoever they are from, whatever they are, and however often they come; be one of them no text."""
    said_at = db.clock.now() - timedelta(minutes=3, microseconds=7)
    raw = '{"text": "na\u00efve \\u0000 \\ud83d\\ude00"}'.encode()
    updates: list[Update] = [
        inbound("a1", provider_id="a1", raw=raw, provider_time=said_at),
        inbound("b1", BOB, provider_id="b1", type="button", choice_id="yes"),
        inbound("a2", provider_id="a2", conversational=False),
        inbound("a1", provider_id="a1"),
        InboundOther(channel="whatsapp", number_id=NUMBER_ID, key="k", type="unsupported", raw=b"{}"),
        inbound("b2", BOB, provider_id="b2"),
        inbound("", BOB, provider_id="known before"),
        receipt(MessageStatus.DELIVERED, "wamid.nobody"),
        inbound("c1", "+16505559999", provider_id="c1", sender_name="Cy"),
        inbound("c2", "+16505559999", provider_id="c2"),
        replace(inbound("a3", provider_id="a3"), senders=(ADAS_ID, phone(ADA))),
        inbound("a0", provider_id="a0", raw=raw_of_one),
        replace(inbound("a4", provider_id="a4"), senders=(ADAS_ID,)),
    ]

    async def begin() -> None:
        for table in TABLES:
            db.change(f"DELETE FROM {table}")
        await ingest(db, inbound("hi", sender_name="Ada", provider_id="hi", provider_time=said_at))
        await ingest(db, inbound("ho", BOB, sender_name="Bob", provider_id="known before", provider_time=said_at))

    await begin()
    together = await ingest(db, *updates)
    left = everything(db)
    await begin()
    reports = [await ingest(db, update) for update in updates]
    assert everything(db) == left
    assert together == IngestReport(
        **{field.name: sum(getattr(report, field.name) for report in reports) for field in fields(IngestReport)}
    )
    assert (together.stored, together.duplicates, together.enrolled) == (11, 2, 1)
