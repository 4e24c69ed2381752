"""Events that were set aside: an operator sees them, tries them again, or drops them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from promptpipe.model.decisions import Decision
from promptpipe.model.errors import NotFoundError, PreconditionError
from promptpipe.model.events import Replied, TimerFired
from promptpipe.model.ids import EventId, JobId
from promptpipe.model.jobs import Ending, Fire, NewJob
from promptpipe.model.leases import Work
from promptpipe.model.listing import PageRequest
from tests.support.database import LEASE_SECONDS
from tests.support.deciding import decide
from tests.support.people import ADA, BOB, ENROLLMENT, batch, enroll, inbound

if TYPE_CHECKING:
    from promptpipe.model.decisions import Delivery
    from promptpipe.model.events import EventAside
    from promptpipe.model.ids import ParticipantId
    from tests.support.database import Database

LIMIT = 120.0


async def tell(db: Database, *texts: str, sender: str = ADA) -> None:
    for text in texts:
        await db.store.inbound.ingest(batch(inbound(text, sender)), ENROLLMENT)


async def claim(db: Database) -> Delivery:
    [delivery] = (await db.store.mailboxes.claim(db.claim())).items
    return delivery


async def set_aside(db: Database, delivery: Delivery) -> None:
    """Let a delivery fail for the last time."""
    event, options = delivery.event, {"error": f"boom {delivery.event.id}", "delay": 0.0}
    assert await db.store.mailboxes.retry(delivery.lease, event.id, blocked=LIMIT, limit=LIMIT, **options)  # type: ignore[arg-type]


async def poisoned(db: Database, text: str = "poison", sender: str = ADA) -> EventId:
    """Return an event that was set aside, in a mailbox that was empty."""
    await tell(db, text, sender=sender)
    delivery = await claim(db)
    await set_aside(db, delivery)
    assert (await db.store.mailboxes.claim(db.claim())).items == []
    return delivery.event.id


async def aside(db: Database, whose: ParticipantId | None = None) -> list[EventAside]:
    return list((await db.store.aside.list(whose, PageRequest(size=50))).items)


def text_of(delivery: Delivery | None) -> str:
    assert delivery is not None
    assert isinstance(delivery.event.event, Replied)
    return delivery.event.event.text


async def test_what_was_set_aside_is_listed_with_its_reason(db: Database) -> None:
    """The newest first, everybody's or one person's, in pages; what waits in a mailbox is not among them."""
    older, newer = await poisoned(db, "first"), await poisoned(db, "second", BOB)
    await tell(db, "waits")
    everyone = await aside(db)
    assert [event.id for event in everyone] == [newer, older]
    assert (everyone[1].kind, everyone[1].payload["text"], everyone[1].attempts) == ("replied", "first", 1)
    assert everyone[1].last_error == f"boom {older}"
    assert everyone[1].created_at == db.clock.now()
    assert [event.id for event in await aside(db, everyone[1].participant_id)] == [older]
    first = await db.store.aside.list(None, PageRequest(size=1))
    assert ([event.id for event in first.items], first.last) == ([newer], newer)
    rest = await db.store.aside.list(None, PageRequest(size=1, after=first.last))
    assert ([event.id for event in rest.items], rest.last) == ([older], None)
    assert await db.store.aside.count() == 2


async def test_event_of_an_unknown_kind_is_listed(db: Database) -> None:
    """As it is stored, whoever wrote it."""
    await tell(db, "one")
    db.change("UPDATE mailbox_events SET kind = 'from_the_future'")
    assert (await db.store.mailboxes.claim(db.claim())).items == []
    [event] = await aside(db)
    assert (event.kind, event.payload["text"], event.attempts) == ("from_the_future", "one", 0)


async def test_event_that_is_retried_comes_last(db: Database) -> None:
    """The conversation has gone on meanwhile: it re-enters at the tail, as if it had never been tried."""
    event_id = await poisoned(db)
    await tell(db, "two")
    db.runners.woken.clear()
    await db.store.aside.retry(event_id)
    assert db.runners.woken == [Work.MAILBOX]
    assert await aside(db) == []
    first = await claim(db)
    assert text_of(first) == "two"
    second = await decide(db, first, Decision(), next_within=LEASE_SECONDS)
    assert text_of(second) == "poison"
    assert second is not None
    assert (second.event.id, second.event.attempt, second.event.blocked) == (event_id, 1, 0.0)
    assert await decide(db, second, Decision(), next_within=LEASE_SECONDS) is None


async def test_event_that_is_retried_wakes_its_mailbox(db: Database) -> None:
    """Nobody else has to write first; and it has all its attempts again."""
    event_id = await poisoned(db)
    await db.store.aside.retry(event_id)
    delivery = await claim(db)
    assert not await db.store.mailboxes.retry(
        delivery.lease, event_id, error="again", delay=0.0, blocked=LIMIT - 1, limit=LIMIT
    )
    await set_aside(db, await claim(db))
    [event] = await aside(db)
    assert (event.id, event.attempts) == (event_id, 2)


async def test_event_is_retried_once(db: Database) -> None:
    """Whoever asks again is told where it is; the order in the mailbox stays."""
    event_id = await poisoned(db)
    await db.store.aside.retry(event_id)
    await tell(db, "two")
    for again in (db.store.aside.retry, db.store.aside.drop):
        with pytest.raises(PreconditionError, match="it is in its mailbox"):
            await again(event_id)
    first = await claim(db)
    assert text_of(first) == "poison"
    assert text_of(await decide(db, first, Decision(), next_within=LEASE_SECONDS)) == "two"


async def test_dropped_event_is_gone(db: Database) -> None:
    """And with it whatever could be asked about it."""
    event_id = await poisoned(db)
    await db.store.aside.drop(event_id)
    assert await db.store.aside.count() == 0
    for asked in (db.store.aside.retry, db.store.aside.drop):
        with pytest.raises(NotFoundError, match=f"there is no event {event_id}"):
            await asked(event_id)
    await tell(db, "two")
    assert text_of(await claim(db)) == "two"


async def test_timer_that_is_retried_takes_its_key_again(db: Database) -> None:
    """A decision that cancels by that key means this event too."""
    person = await enroll(db, ADA)
    job = NewJob(
        id=JobId(db.new_id()), kind="t", run_at=db.clock.now(), dedupe_key=f"{person}/k", participant_id=person
    )
    await db.store.jobs.enqueue(job)
    [leased] = (await db.store.jobs.claim(db.claim())).items
    await db.store.jobs.finish([Ending(leased.lease, Fire())])
    delivery = await claim(db)
    assert isinstance(delivery.event.event, TimerFired)
    await set_aside(db, delivery)
    await db.store.aside.retry(delivery.event.id)
    await tell(db, "enough")
    db.change("UPDATE mailbox_events SET seq = seq + 10 WHERE kind = 'timer_fired'")
    talk = await claim(db)
    assert text_of(talk) == "enough"
    assert await decide(db, talk, Decision(cancel=(f"{person}/k",)), next_within=LEASE_SECONDS) is None
    assert db.rows("SELECT id FROM mailbox_events") == []
