"""Instances: signs of life, and what is stale without them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from promptpipe.model.ids import JobId, WorkerId
from promptpipe.model.jobs import NewJob
from promptpipe.model.leases import Instance, Work
from tests.support.database import LEASE_SECONDS, PostgresTestDatabase
from tests.support.people import batch, enroll, inbound
from tests.support.sending import claim_order, put

if TYPE_CHECKING:
    from tests.support.database import Database

A, B = WorkerId("a"), WorkerId("b")


async def test_each_sees_the_others_signs(db: Database) -> None:
    """One more with each, whatever it says of its readiness."""
    instances = db.store.instances
    assert await instances.beat(A, "one", ready=False) == {}
    assert await instances.beat(B, "two", ready=True) == {A: Instance("one", 1)}
    assert await instances.beat(B, "two", ready=False) == {A: Instance("one", 1)}
    assert await instances.beat(A, "one", ready=True) == {B: Instance("two", 2)}


async def test_only_who_gave_no_further_sign_is_buried(db: Database) -> None:
    """A sign that came between the look and the burial saves it."""
    instances = db.store.instances
    for _ in range(2):
        await instances.beat(B, "two", ready=True)
    assert [await instances.bury(B, 1), await instances.bury(B, 2), await instances.bury(B, 2)] == [False, True, False]
    assert await instances.beat(A, "one", ready=True) == {}


async def test_who_gives_back_its_leases_is_no_instance_any_more(db: Database) -> None:
    """Its end is orderly: nobody has to wait for its signs to fail."""
    await db.store.instances.beat(A, "one", ready=True)
    await db.store.leases.give_back(A)
    assert await db.store.instances.beat(B, "two", ready=True) == {}


async def test_doubts_wait_on_while_another_instance_takes_statuses(db: Database) -> None:
    """The wait starts anew only when nobody was ready: an instance that starts beside others changes nothing."""
    await put(db, await enroll(db))
    order = await claim_order(db)
    await db.store.leases.give_back(db.worker)
    waiting = db.rows("SELECT doubt_until FROM outbox_messages")
    await db.store.instances.beat(B, "two", ready=True)
    db.clock.advance(5.0)
    assert await db.store.recovery.restart_doubts() == 0
    assert db.rows("SELECT doubt_until FROM outbox_messages") == waiting
    db.clock.advance(5.0)  # B has not said for ten seconds that it is ready
    assert await db.store.recovery.restart_doubts() == 1
    assert db.rows("SELECT doubt_until FROM outbox_messages") != waiting
    assert order.attempt == 1


async def test_recovery_is_done_by_one_at_a_time_and_passes_on_when_its_lease_ends(db: Database) -> None:
    """It is extended and released like any lease."""
    recovery = db.store.recovery
    lease = await recovery.begin(LEASE_SECONDS)
    assert lease is not None
    db.clock.advance(LEASE_SECONDS / 2)
    assert await recovery.begin(LEASE_SECONDS) is None
    assert (await db.store.leases.extend([lease], LEASE_SECONDS)).lost == frozenset()
    db.clock.advance(LEASE_SECONDS)
    following = await recovery.begin(LEASE_SECONDS)
    assert following is not None
    assert (await db.store.leases.extend([lease], LEASE_SECONDS)).lost == {lease}
    await recovery.end(lease)
    assert await recovery.begin(LEASE_SECONDS) is None


async def test_recovery_of_a_process_that_died_is_free_at_once(db: Database) -> None:
    """The next start does not wait for the lease."""
    assert await db.store.recovery.begin(LEASE_SECONDS) is not None
    await db.restart()
    lease = await db.store.recovery.begin(LEASE_SECONDS)
    assert lease is not None
    assert lease.work is Work.RECOVERY


@pytest.mark.parametrize("closed_db", ["postgres"], indirect=True)
async def test_nothing_is_taken_from_an_instance_that_lives(db: Database) -> None:
    """Jobs, mailboxes, messages and recovery of another are its own until it is buried; then they are due at once.

    (On SQLite there is no other.)
    """
    assert isinstance(db, PostgresTestDatabase)
    person = await enroll(db)
    await put(db, person)
    await db.store.inbound.ingest(batch(inbound()), None)
    await db.store.jobs.enqueue(NewJob(id=JobId(db.new_id()), kind="k", run_at=db.clock.now()))
    await db.store.instances.beat(db.worker, "first", ready=True)
    first = db.worker
    assert len((await db.store.jobs.claim(db.claim())).items) == 1
    assert len((await db.store.mailboxes.claim(db.claim())).items) == 1
    order = await claim_order(db)
    assert await db.store.recovery.begin(LEASE_SECONDS) is not None
    await db.restart()
    recovery = db.store.recovery
    assert await recovery.requeue_stale_running_jobs() == 0
    assert await recovery.release_stale_mailboxes() == 0
    assert await recovery.requeue_stale_sending_messages() == []
    assert await recovery.begin(LEASE_SECONDS) is None
    assert await db.store.instances.bury(first, 1)
    assert await recovery.requeue_stale_running_jobs() == 1
    assert await recovery.release_stale_mailboxes() == 1
    assert await recovery.requeue_stale_sending_messages() == [order.message.id]
    assert await recovery.begin(LEASE_SECONDS) is not None
    assert len((await db.store.jobs.claim(db.claim())).items) == 1
    assert len((await db.store.mailboxes.claim(db.claim())).items) == 1
    lost = await db.store.leases.extend([order.lease], LEASE_SECONDS)
    assert lost.lost == {order.lease}


@pytest.mark.parametrize("closed_db", ["postgres"], indirect=True)
async def test_doubt_about_a_dead_instances_message_begins_when_its_request_surely_has_ended(db: Database) -> None:
    """At the end of its lease and the longest send after it: it may be gone from us, and not from the network."""
    db.rules = type(db.rules)(wait=120.0, linger=10.0)
    await db.restart()
    await put(db, await enroll(db))
    order = await claim_order(db)
    claimed_at = db.clock.now()
    await db.restart()
    db.clock.advance(15.0)
    await db.repair()
    [(doubt_from, doubt_until)] = db.rows("SELECT doubt_from, doubt_until FROM outbox_messages")
    assert doubt_from == claimed_at + timedelta(seconds=LEASE_SECONDS + 10.0)
    assert doubt_until == doubt_from + timedelta(seconds=120.0)
    assert order.attempt == 1
