"""Lists: the newest first, in pages that neither repeat nor miss anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import pytest

from promptpipe.model.ids import JobId, MessageId, ParticipantId
from promptpipe.model.jobs import Ending, Fail, Finish, JobFailure, JobStatus, NewJob
from promptpipe.model.listing import JobFilter, MessageFilter, PageRequest
from promptpipe.model.messages import MessageStatus
from promptpipe.model.participants import ParticipantStatus, Profile
from tests.support.people import ADA, BOB, ENROLLMENT, batch, enroll, inbound, message, phone, receipt
from tests.support.sending import mark

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from promptpipe.model.listing import Page
    from tests.support.database import Database

T = TypeVar("T")

ALL = PageRequest(size=100)


async def walk(fetch: Callable[[PageRequest], Awaitable[Page[T]]], size: int) -> list[tuple[T, ...]]:
    """Return the pages of a list from the first to the last."""
    pages = []
    after: str | None = None
    while True:
        page = await fetch(PageRequest(size=size, after=after))
        pages.append(page.items)
        if page.last is None:
            return pages
        after = page.last


async def enqueue(db: Database, **other: object) -> JobId:
    values: dict[str, object] = {"id": JobId(db.new_id()), "kind": "test", "run_at": db.clock.now(), **other}
    job, _ = await db.store.jobs.enqueue(NewJob(**values))  # type: ignore[arg-type]
    return job.id


async def test_pages_neither_repeat_nor_miss_anything(db: Database) -> None:
    """Not even when the list grows meanwhile; and the last page says that it is the last."""
    ids = [await enqueue(db) for _ in range(5)]
    first = await db.store.jobs.list(JobFilter(), PageRequest(size=2))
    await enqueue(db)
    second = await db.store.jobs.list(JobFilter(), PageRequest(size=2, after=first.last))
    third = await db.store.jobs.list(JobFilter(), PageRequest(size=2, after=second.last))
    assert [job.id for page in (first, second, third) for job in page.items] == ids[::-1]
    assert (first.last, second.last, third.last) == (ids[3], ids[1], None)


async def test_full_last_page_is_known_as_the_last(db: Database) -> None:
    """Nobody has to fetch an empty page to learn it."""
    for _ in range(4):
        await enqueue(db)
    pages = await walk(lambda page: db.store.jobs.list(JobFilter(), page), 2)
    assert [len(page) for page in pages] == [2, 2]


async def test_page_ends_early_rather_than_become_too_large(db: Database) -> None:
    """Clients take a few megabytes of answer."""
    for _ in range(40):
        await enqueue(db, payload={"text": "x" * 60_000})
    pages = await walk(lambda page: db.store.jobs.list(JobFilter(), page), 100)
    assert [len(page) for page in pages] == [18, 18, 4]


async def test_jobs_live_and_ended_are_one_list(db: Database) -> None:
    """What an operator looks for is there, whatever has become of it."""
    for name in ("done", "failed", "queued"):
        await enqueue(db, kind=name)
    leases = {item.job.kind: item.lease for item in (await db.store.jobs.claim(db.claim(2))).items}
    failure = JobFailure(type="E", message="no")
    await db.store.jobs.finish([Ending(leases["done"], Finish()), Ending(leases["failed"], Fail(failure))])
    page = await db.store.jobs.list(JobFilter(), ALL)
    assert [(job.kind, job.status) for job in page.items] == [
        ("queued", JobStatus.QUEUED),
        ("failed", JobStatus.FAILED),
        ("done", JobStatus.DONE),
    ]
    assert [job == await db.store.jobs.get(job.id) for job in page.items] == [True] * 3


@pytest.mark.parametrize(
    ("wanted", "kinds"),
    [
        ({"status": JobStatus.CANCELED}, ["a"]),
        ({"status": JobStatus.QUEUED}, ["c", "b"]),
        ({"kind": "b"}, ["b"]),
        ({"queue": "slow"}, ["c"]),
        ({"kind": "a", "queue": "slow"}, []),
    ],
)
async def test_jobs_are_listed_by_status_kind_and_queue(
    db: Database, wanted: dict[str, object], kinds: list[str]
) -> None:
    """Filters narrow the list together."""
    first = await enqueue(db, kind="a")
    await enqueue(db, kind="b")
    await enqueue(db, kind="c", queue="slow")
    await db.store.jobs.cancel(first)
    page = await db.store.jobs.list(JobFilter(**wanted), ALL)  # type: ignore[arg-type]
    assert [job.kind for job in page.items] == kinds


async def test_timers_of_one_participant_are_listed(db: Database) -> None:
    """Live and ended, and nobody else's."""
    ada, bob = await enroll(db, ADA), await enroll(db, BOB)
    ended = await enqueue(db, participant_id=ada)
    await enqueue(db, participant_id=bob)
    live = await enqueue(db, participant_id=ada)
    await db.store.jobs.cancel(ended)
    pages = await walk(lambda page: db.store.jobs.list(JobFilter(participant_id=ada), page), 1)
    assert [[job.id for job in page] for page in pages] == [[live], [ended]]


async def test_messages_are_listed_by_status_and_participant(db: Database) -> None:
    """Of everybody, of one person, of one status."""
    ada, bob = await enroll(db, ADA), await enroll(db, BOB)
    sent = [await db.store.outbox.enqueue(message(db, person, text)) for person, text in ((ada, "1"), (bob, "2"))]
    ids = [item.id for item, _ in sent]
    db.change("UPDATE outbox_messages SET status = 'failed' WHERE id = ?", ids[0])
    outbox = db.store.outbox

    async def listed(**wanted: object) -> list[MessageId]:
        page = await outbox.list(MessageFilter(**wanted), ALL)  # type: ignore[arg-type]
        return [item.id for item in page.items]

    assert await listed() == ids[::-1]
    assert await listed(participant_id=bob) == [ids[1]]
    assert await listed(status=MessageStatus.FAILED) == [ids[0]]
    assert await listed(status=MessageStatus.FAILED, participant_id=bob) == []


async def test_participants_are_listed_by_status(db: Database) -> None:
    """The newest first."""
    people = [
        (await db.store.participants.enroll(phone(number), Profile(), ENROLLMENT)).id
        for number in (ADA, BOB, "+491701")
    ]
    await db.store.participants.update(people[1], {}, ParticipantStatus.PAUSED)
    pages = await walk(lambda page: db.store.participants.list(None, page), 2)
    assert [[person.id for person in page] for page in pages] == [people[:0:-1], people[:1]]
    paused = await db.store.participants.list(ParticipantStatus.PAUSED, ALL)
    assert paused.items == (await db.store.participants.get(people[1]),)


async def test_flow_states_are_listed_by_flow_and_participant(db: Database) -> None:
    """A person can be in several flows; a page may end between them."""
    ada, bob = await enroll(db, ADA), await enroll(db, BOB)
    db.change(
        "INSERT INTO flow_states"
        " SELECT participant_id, 'zen', 's', state_data, 1, created_at, created_at FROM flow_states"
    )

    async def listed(who: ParticipantId | None, flow: str | None) -> list[list[tuple[str, str]]]:
        pages = await walk(lambda page: db.store.participants.flow_states(who, flow, page), 3)
        return [[(state.participant_id, state.flow_type) for state in page] for page in pages]

    assert await listed(None, None) == [[(bob, "zen"), (bob, "echo"), (ada, "zen")], [(ada, "echo")]]
    assert await listed(ada, None) == [[(ada, "zen"), (ada, "echo")]]
    assert await listed(None, "echo") == [[(bob, "echo"), (ada, "echo")]]
    assert await listed(bob, "zen") == [[(bob, "zen")]]


async def test_responses_are_listed_as_they_came(db: Database) -> None:
    """Of everybody, nobody we know among them, or of one person."""
    ada = await enroll(db, ADA)
    await db.store.inbound.ingest(batch(inbound("who am I?", BOB)), None)
    await db.store.inbound.ingest(batch(inbound("tea", ADA, raw=b'{"a":1}')), ENROLLMENT)
    pages = await walk(lambda page: db.store.history.responses(None, page), 2)
    assert [[item.text for item in page] for page in pages] == [["tea", "who am I?"], ["hi"]]
    mine = (await db.store.history.responses(ada, ALL)).items
    assert [(item.text, item.sender, item.raw) for item in mine] == [("tea", ADA, b'{"a":1}'), ("hi", ADA, b"{}")]
    assert mine[0].received_at == db.clock.now()


async def test_receipts_are_listed_by_message(db: Database) -> None:
    """Those about a message we know, and those about none."""
    person = await enroll(db)
    sent, _ = await db.store.outbox.enqueue(message(db, person))
    [lease] = (await db.store.outbox.claim(db.claim())).items
    await mark(db, lease)
    await db.store.inbound.ingest(batch(receipt(MessageStatus.SENT, reference=(sent.id, 1))), None)
    await db.store.inbound.ingest(batch(receipt(MessageStatus.FAILED, "wamid.else", error="131026")), None)
    everything = (await db.store.history.receipts(None, ALL)).items
    assert [(item.message_id, item.status, item.error) for item in everything] == [
        (None, MessageStatus.FAILED, "131026"),
        (sent.id, MessageStatus.SENT, None),
    ]
    assert (await db.store.history.receipts(sent.id, ALL)).items == everything[1:]
