"""Leases: they end by themselves, and only their holder can move them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.ids import JobId
from promptpipe.model.jobs import NewJob
from tests.support.database import LEASE_SECONDS
from tests.support.people import ADA, batch, enroll, inbound, message

if TYPE_CHECKING:
    from promptpipe.model.leases import Lease
    from tests.support.database import Database


async def one_of_each(db: Database) -> list[Lease]:
    """Return leases on a job, a mailbox and an outbox lane."""
    person = await enroll(db, ADA)
    await db.store.jobs.enqueue(NewJob(id=JobId(db.new_id()), kind="t", run_at=db.clock.now()))
    await db.store.inbound.ingest(batch(inbound()), None)
    await db.store.outbox.enqueue(message(db, person))
    jobs = (await db.store.jobs.claim(db.claim())).items
    mailboxes = (await db.store.mailboxes.claim(db.claim())).items
    outboxes = (await db.store.outbox.claim(db.claim())).items
    return [jobs[0].lease, mailboxes[0].lease, outboxes[0]]


async def claimable(db: Database) -> list[int]:
    """Return how many jobs, mailboxes and outbox lanes another worker could claim."""
    other = db.claim(worker="other", suspect=False)
    claims = (db.store.jobs.claim, db.store.mailboxes.claim, db.store.outbox.claim)
    return [len((await claim(other)).items) for claim in claims]


async def test_extended_leases_hold_longer(db: Database) -> None:
    """What is extended in time is nobody else's; what is not, is."""
    leases = await one_of_each(db)
    db.clock.advance(LEASE_SECONDS - 1)
    extension = await db.store.leases.extend(leases, LEASE_SECONDS)
    assert (extension.lost, extension.cancel_requested) == (frozenset(), frozenset())
    db.clock.advance(LEASE_SECONDS - 1)
    assert await claimable(db) == [0, 0, 0]
    db.clock.advance(1)
    assert await claimable(db) == [1, 1, 1]


async def test_extending_a_lost_lease_says_so(db: Database) -> None:
    """Of several, exactly those that are gone are named."""
    leases = await one_of_each(db)
    db.clock.advance(LEASE_SECONDS)
    await db.store.mailboxes.claim(db.claim(worker="other"))
    assert (await db.store.leases.extend(leases, LEASE_SECONDS)).lost == {leases[1]}


async def test_give_back_releases_everything_of_a_worker_and_nothing_of_others(db: Database) -> None:
    """After it, all is due at once; a second time there is nothing left to give."""
    await one_of_each(db)
    assert await db.store.leases.give_back(db.worker) == 3
    assert await db.store.leases.give_back(db.worker) == 0
    assert await claimable(db) == [1, 1, 1]
    assert await db.store.leases.give_back(db.worker) == 0
