"""Leases of all kinds on SQLite."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from promptpipe.model.leases import Extension, Lease, Work
from promptpipe.storage.sqlite import lanes, mailbox_events, messages
from promptpipe.storage.sqlite.values import span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptpipe.model.ids import WorkerId
    from promptpipe.model.messages import InDoubtRules
    from promptpipe.storage.sqlite.database import Database
    from promptpipe.storage.sqlite.transaction import Transaction

GIVEN_BACK = "given back while the request was on its way"


class SqliteLeases:
    """`ports.store.LeaseStore` on SQLite."""

    def __init__(self, database: Database, rules: InDoubtRules) -> None:
        self._database = database
        self._rules = rules

    async def extend(self, leases: Sequence[Lease], seconds: float) -> Extension:
        """See `LeaseStore.extend`."""
        return await self._database.write(partial(_extend, leases=leases, lease_seconds=seconds))

    async def give_back(self, worker: WorkerId) -> int:
        """See `LeaseStore.give_back`."""
        return await self._database.write(partial(_give_back, worker=worker, rules=self._rules))


def _extend(tx: Transaction, leases: Sequence[Lease], lease_seconds: float) -> Extension:
    lost, cancel_requested = set(), set()
    lease_end = tx.now + span(lease_seconds)
    for lease in leases:
        if lease.work is Work.JOB:
            row = tx.one("extend_job", id=lease.key, fence=lease.fence, lease_end=lease_end)
            if row is None:
                lost.add(lease)
            elif row["cancel_requested"]:
                cancel_requested.add(lease)
        elif not tx.run("extend_lane", kind=lease.work.value, key=lease.key, fence=lease.fence, lease_end=lease_end):
            lost.add(lease)
    return Extension(frozenset(lost), frozenset(cancel_requested))


def _give_back(tx: Transaction, worker: WorkerId, rules: InDoubtRules) -> int:
    held_lanes = tx.all("lanes_of_worker", worker=worker)
    for row in held_lanes:
        lease = Lease(Work(row["kind"]), row["key"], row["fence"])
        if lease.work is Work.MAILBOX:
            tx.run("give_event_back", participant_id=lease.key)
            empty = mailbox_events.head(tx, lease.key) is None
            lanes.release(tx, lease, None if empty else tx.now)
        else:
            messages.doubt_if_sending(tx, lease.key, rules, GIVEN_BACK)
            lanes.release(tx, lease, messages.head_due(tx, lease.key))
    jobs = tx.all("jobs_of_worker", worker=worker)
    for row in jobs:
        tx.run("requeue_job", id=row["id"], due_at=tx.now, given_back=1, last_error=None, now=tx.now)
        tx.wake(Work.JOB)
    return len(held_lanes) + len(jobs)
