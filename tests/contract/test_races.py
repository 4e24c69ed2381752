"""Many at once: whoever comes second finds what the first has done. On PostgreSQL these are as many connections."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import pytest
import trio

from promptpipe.model.decisions import Decision, Delivery
from promptpipe.model.errors import AlreadyExistsError, LeaseLostError, PreconditionError
from promptpipe.model.ids import JobId, WorkerId
from promptpipe.model.jobs import Ending, Finish, Fire, NewJob, OnConflict
from promptpipe.model.leases import Claimed, Lease, Work
from promptpipe.model.messages import MessageStatus, Settlement, Verdict
from promptpipe.model.participants import Profile
from tests.support.database import LEASE_SECONDS
from tests.support.deciding import decide
from tests.support.people import ADA, BOB, ENROLLMENT, batch, enroll, inbound, message, phone, receipt
from tests.support.sending import claim_lanes, mark, put, record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from tests.support.database import Database

T = TypeVar("T")

MANY = 12


async def all_at_once(calls: Iterable[Callable[[], Awaitable[T]]]) -> list[T]:
    """Begin all *calls* together and return their results, in the order in which they came."""
    results = []

    async def one(call: Callable[[], Awaitable[T]]) -> None:
        results.append(await call())

    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(one, call)
    return results


def timer(db: Database, key: str | None = None, **other: object) -> NewJob:
    return NewJob(id=JobId(db.new_id()), kind="t", run_at=db.clock.now(), dedupe_key=key, **other)  # type: ignore[arg-type]


@pytest.mark.parametrize("on_conflict", OnConflict)
async def test_one_job_for_one_key(db: Database, on_conflict: OnConflict) -> None:
    """One is created, and all the others get it."""
    new = [timer(db, "key", on_conflict=on_conflict) for _ in range(MANY)]
    answers = await all_at_once(partial(db.store.jobs.enqueue, one) for one in new)
    assert len({job.id for job, _ in answers}) == 1
    assert sum(created for _, created in answers) == 1


async def test_one_message_for_one_key(db: Database) -> None:
    """One is created, and takes one place in its lane."""
    person = await enroll(db)
    new = [message(db, person, "hello", dedupe_key="key") for _ in range(MANY)]
    answers = await all_at_once(partial(db.store.outbox.enqueue, one) for one in new)
    assert len({sent.id for sent, _ in answers}) == 1
    assert sum(created for _, created in answers) == 1
    assert db.rows("SELECT count(*) FROM outbox_messages") == [(1,)]


async def test_one_participant_for_one_address(db: Database) -> None:
    """Whoever writes from a new number in many requests at once is enrolled once, and nothing they said is lost."""
    posts = [batch(inbound(str(number))) for number in range(MANY)]
    reports = await all_at_once(partial(db.store.inbound.ingest, post, ENROLLMENT) for post in posts)
    assert sum(report.enrolled for report in reports) == 1
    assert db.rows("SELECT count(*) FROM conversation_participants") == [(1,)]
    assert db.rows("SELECT seq FROM mailbox_events ORDER BY seq") == [(seq,) for seq in range(1, MANY + 1)]


async def test_one_of_those_who_enroll_someone_is_told_that_they_did(db: Database) -> None:
    """The others are told who it is."""

    async def attempt() -> str | None:
        try:
            return (await db.store.participants.enroll(phone(ADA), Profile(), ENROLLMENT)).id
        except AlreadyExistsError:
            return None

    made = [person for person in await all_at_once([attempt] * MANY) if person is not None]
    assert db.rows("SELECT id FROM conversation_participants") == [(made[0],)]
    assert len(made) == 1


async def test_no_two_workers_claim_the_same_job(db: Database) -> None:
    """However many claim at once, each job is somebody's, once."""
    for _ in range(3 * MANY):
        await db.store.jobs.enqueue(timer(db))
    claims = [partial(db.store.jobs.claim, db.claim(limit=3, worker=f"w{number}")) for number in range(MANY)]
    claimed = [item.job.id for answer in await all_at_once(claims) for item in answer.items]
    while rest := (await db.store.jobs.claim(db.claim(limit=100))).items:  # what a claim had passed over, locked
        claimed += [item.job.id for item in rest]
    assert len(claimed) == len(set(claimed)) == 3 * MANY


async def test_job_that_is_replaced_while_it_ends_is_there_in_the_end(db: Database) -> None:
    """Whoever replaces it finds it running, and takes it over, or ended, and makes another: one is live, always."""
    for number in range(MANY):
        await db.store.jobs.enqueue(timer(db, f"key{number}"))
    leased = (await db.store.jobs.claim(db.claim(limit=MANY))).items
    calls: list[Callable[[], Awaitable[object]]] = []
    for item in leased:
        calls.append(partial(db.store.jobs.finish, [Ending(item.lease, Finish())]))
        again = timer(db, item.job.dedupe_key, on_conflict=OnConflict.REPLACE)
        calls.append(partial(db.store.jobs.enqueue, again))
    await all_at_once(calls)
    live = db.rows("SELECT dedupe_key, status FROM jobs")
    assert sorted(live) == sorted((f"key{number}", "queued") for number in range(MANY))


@pytest.mark.parametrize("work", [Work.MAILBOX, Work.OUTBOX])
async def test_no_two_workers_claim_the_same_lane(db: Database, work: Work) -> None:
    """A lane has one holder."""
    for number in range(MANY):
        sender = f"+1650555{number:04}"
        if work is Work.MAILBOX:
            await db.store.inbound.ingest(batch(inbound(sender=sender)), ENROLLMENT)
        else:
            await put(db, await enroll(db, sender))
    store = db.store.mailboxes if work is Work.MAILBOX else db.store.outbox
    claims: list[Callable[[], Awaitable[Claimed[Delivery] | Claimed[Lease]]]] = [
        partial(store.claim, db.claim(limit=3, worker=f"w{number}")) for number in range(MANY)
    ]
    claimed = [item for answer in await all_at_once(claims) for item in answer.items]
    claimed += (await store.claim(db.claim(limit=100))).items  # what a claim had passed over, locked
    leases = [item.lease if isinstance(item, Delivery) else item for item in claimed]
    assert len(leases) == len({lease.key for lease in leases}) == MANY
    assert (await db.store.leases.extend(leases, LEASE_SECONDS)).lost == frozenset()


async def test_decision_that_is_committed_twice_at_once_is_applied_once(db: Database) -> None:
    """The lane's lock decides; the second finds its event gone."""
    await db.store.inbound.ingest(batch(inbound()), ENROLLMENT)
    [delivery] = (await db.store.mailboxes.claim(db.claim())).items
    decision = Decision(cancel=("nothing",))

    async def decide_once() -> bool:
        try:
            await decide(db, delivery, decision, next_within=None)
        except LeaseLostError:
            return False
        return True

    assert sorted(await all_at_once([decide_once] * MANY)) == [False] * (MANY - 1) + [True]


async def test_timers_fire_while_their_people_write(db: Database) -> None:
    """Both go to the mailbox, in batches and requests that name the people in different orders; all arrive, once."""
    people = [await enroll(db, number) for number in (ADA, BOB)]
    for person in people * MANY:
        await db.store.jobs.enqueue(timer(db, participant_id=person))
    leased = list((await db.store.jobs.claim(db.claim(limit=100))).items)
    halves = (leased[: len(leased) // 2], leased[len(leased) // 2 :][::-1])
    posts = [
        batch(*(inbound(f"{number}", sender) for sender in order))
        for number, order in enumerate([(ADA, BOB), (BOB, ADA)] * (MANY // 2))
    ]
    calls: list[Callable[[], Awaitable[object]]] = [
        partial(db.store.inbound.ingest, post, ENROLLMENT) for post in posts
    ]
    calls += [partial(db.store.jobs.finish, [Ending(item.lease, Fire()) for item in half]) for half in halves]
    await all_at_once(calls)
    for person in people:
        rows = db.rows("SELECT seq, kind FROM mailbox_events WHERE participant_id = ? ORDER BY seq", person)
        assert len(rows) == 2 * MANY
        assert len({seq for seq, _ in rows}) == len(rows)


async def test_status_that_comes_with_the_answer_is_never_left_over(db: Database) -> None:
    """Whichever commits first, the message ends as delivered and nothing stays parked."""
    people = [await enroll(db, f"+1650555{number:04}") for number in range(MANY)]
    for person in people:
        await put(db, person)
    calls: list[Callable[[], Awaitable[object]]] = []
    for number, lease in enumerate(await claim_lanes(db) + await claim_lanes(db)):
        order = await mark(db, lease)
        assert order is not None
        accepted = Settlement(verdict=Verdict.ACCEPTED, provider_id=f"wamid.{number}")
        calls.append(partial(record, db, order, accepted, None))
        delivered = receipt(MessageStatus.DELIVERED, f"wamid.{number}")
        calls.append(partial(db.store.inbound.ingest, batch(delivered), None))
    assert len(calls) == 2 * MANY
    await all_at_once(calls)
    assert db.rows("SELECT count(*) FROM parked_updates") == [(0,)]
    assert db.rows("SELECT DISTINCT status FROM outbox_messages") == [("delivered",)]


async def test_statuses_of_each_others_messages_in_any_order(db: Database) -> None:
    """Requests that bring the statuses of the same messages in different orders do not stand in each other's way."""
    messages = []
    for number in range(4):
        await put(db, await enroll(db, f"+1650555{number:04}"))
    for number, lease in enumerate(await claim_lanes(db)):
        order = await mark(db, lease)
        assert order is not None
        accepted = Settlement(verdict=Verdict.ACCEPTED, provider_id=f"wamid.{number}")
        await record(db, order, accepted, None)
        messages.append(f"wamid.{number}")
    posts = [
        batch(*(receipt(status, provider_id) for provider_id in order))
        for status in (MessageStatus.DELIVERED, MessageStatus.READ)
        for order in (messages, messages[::-1], messages[1:] + messages[:1])
    ]
    await all_at_once(partial(db.store.inbound.ingest, post, None) for post in posts)
    assert db.rows("SELECT DISTINCT status FROM outbox_messages") == [("read",)]
    assert db.rows("SELECT count(*) FROM receipts") == [(8,)]


async def test_fields_changed_at_once_are_all_kept(db: Database) -> None:
    """A change of one field does not bring back the old value of another."""
    person = await enroll(db)
    changes: list[dict[str, str | None]] = [{"name": "Ada"}, {"gender": "female"}, {"timezone": "Europe/Berlin"}] * 3
    await all_at_once(partial(db.store.participants.update, person, change, None) for change in changes)
    known = await db.store.participants.get(person)
    assert (known.name, known.gender, known.timezone) == ("Ada", "female", "Europe/Berlin")


async def test_one_instance_recovers(db: Database) -> None:
    """The others get no lease; once it is released, the next one does."""
    leases = await all_at_once([partial(db.store.recovery.begin, LEASE_SECONDS)] * MANY)
    [held] = [lease for lease in leases if lease is not None]
    await db.store.recovery.end(held)
    again = await db.store.recovery.begin(LEASE_SECONDS)
    assert again is not None
    assert again.fence > held.fence


async def test_dead_instance_is_buried_once(db: Database) -> None:
    """Of all who see that it gives no signs, one takes over."""
    await db.store.instances.beat(WorkerId("dead"), "process", ready=True)
    burials = await all_at_once([partial(db.store.instances.bury, WorkerId("dead"), 1)] * MANY)
    assert sorted(burials) == [False] * (MANY - 1) + [True]


async def test_job_that_is_retried_by_many_runs_once(db: Database) -> None:
    """It is live again, once."""
    new = timer(db)
    await db.store.jobs.enqueue(new)
    await db.store.jobs.cancel(new.id)
    await all_at_once([partial(db.store.jobs.retry, new.id)] * MANY)
    [leased] = (await db.store.jobs.claim(db.claim())).items
    await db.store.jobs.finish([Ending(leased.lease, Finish())])
    with pytest.raises(PreconditionError):
        await db.store.jobs.retry(new.id)
    assert db.rows("SELECT count(*) FROM job_history") == [(1,)]


async def test_job_that_is_rescheduled_while_it_is_claimed_does_one_or_the_other(db: Database) -> None:
    """Whoever moved it, nobody claimed it; whoever was refused, somebody did."""
    jobs = [timer(db) for _ in range(MANY)]
    await db.store.jobs.enqueue_many(jobs)
    later = db.clock.now() + timedelta(seconds=60)

    async def reschedule(job: NewJob) -> set[str]:
        try:
            return {(await db.store.jobs.reschedule(job.id, later)).id}
        except PreconditionError:
            return set()

    async def claim() -> set[str]:
        return {leased.job.id for leased in (await db.store.jobs.claim(db.claim(1))).items}

    calls = [call for job in jobs for call in (partial(reschedule, job), claim)]
    answers = await all_at_once(calls)
    assert sum(len(ids) for ids in answers) == len(set[str]().union(*answers))


async def test_key_passes_from_a_timer_to_its_event_and_on_without_a_gap(db: Database) -> None:
    """While a timer with a key fires, nobody can enqueue another one under it; when it is handled, one can."""
    person = await enroll(db)
    await db.store.jobs.enqueue(timer(db, "key", participant_id=person))
    [leased] = (await db.store.jobs.claim(db.claim())).items
    calls: list[Callable[[], Awaitable[object]]] = [
        partial(db.store.jobs.enqueue, timer(db, "key", participant_id=person)) for _ in range(MANY)
    ]
    calls.insert(MANY // 2, partial(db.store.jobs.finish, [Ending(leased.lease, Fire())]))
    await all_at_once(calls)
    live = db.rows("SELECT count(*) FROM jobs WHERE dedupe_key = 'key'")[0][0]
    fired = db.rows("SELECT count(*) FROM mailbox_events WHERE dedupe_key = 'key'")[0][0]
    # Whoever came while it ran asked for it to run again; whoever came later found the event.
    assert (live, fired) in {(1, 1), (0, 1), (1, 0)}
