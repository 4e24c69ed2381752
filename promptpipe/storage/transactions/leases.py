"""Leases of all kinds: extending them, giving them back, and who is there to hold them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from promptpipe.model.ids import WorkerId
from promptpipe.model.leases import Extension, Instance, Lease, Work
from promptpipe.storage.transactions import lanes, mailbox_events, messages
from promptpipe.storage.transactions.values import fences, span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from promptpipe.model.messages import InDoubtRules
    from promptpipe.storage.transactions.transaction import Database, Row, Transaction

GIVEN_BACK = "given back while the request was on its way"


class LeaseTransactions:
    """`ports.store.LeaseStore`."""

    def __init__(self, database: Database, rules: InDoubtRules) -> None:
        self._database = database
        self._rules = rules

    async def extend(self, leases: Sequence[Lease], seconds: float) -> Extension:
        """See `LeaseStore.extend`."""
        return await self._database.write(partial(_extend, leases=leases, lease_seconds=seconds))

    async def give_back(self, worker: WorkerId) -> int:
        """See `LeaseStore.give_back`."""
        return await self._database.write(partial(_give_back, worker=worker, rules=self._rules))


class InstanceTransactions:
    """`ports.instances.InstanceStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def beat(self, worker: WorkerId, process: str, *, ready: bool) -> Mapping[WorkerId, Instance]:
        """See `InstanceStore.beat`."""
        return await self._database.write(partial(_beat, worker=worker, process=process, ready=ready))

    async def bury(self, worker: WorkerId, beats: int) -> bool:
        """See `InstanceStore.bury`."""
        return await self._database.write(partial(_bury, worker=worker, beats=beats))


async def _extend(tx: Transaction, leases: Sequence[Lease], lease_seconds: float) -> Extension:
    """Extend all in one statement for jobs and one for each kind of lane, lanes first."""
    kept: dict[Lease, Row] = {}
    for work in (*lanes.KINDS, Work.JOB):
        wanted = [lease for lease in leases if lease.work is work]
        if not wanted:
            continue
        values = {"leases": fences(wanted), "lease": span(lease_seconds)}
        if work is Work.JOB:
            rows = await tx.all("extend_jobs", **values)
        else:
            rows = await tx.all("extend_lanes", kind=work.value, **values)
        kept |= {Lease(work, row["key"], row["fence"]): row for row in rows}
    return Extension(
        lost=frozenset(leases) - frozenset(kept),
        cancel_requested=frozenset(
            lease for lease, row in kept.items() if lease.work is Work.JOB and row["cancel_requested"]
        ),
    )


async def _give_back(tx: Transaction, worker: WorkerId, rules: InDoubtRules) -> int:
    held_lanes = await tx.all("lanes_of_worker", worker=worker)
    jobs = await tx.all("jobs_of_worker", worker=worker)
    for row in held_lanes:
        lease = Lease(Work(row["kind"]), row["key"], row["fence"])
        match lease.work:
            case Work.MAILBOX:
                await tx.run("give_event_back", participant_id=lease.key)
                empty = not await mailbox_events.heads(tx, [lease.key])
                await lanes.release(tx, [lease], None if empty else await tx.now())
            case Work.OUTBOX:
                await messages.doubt_if_sending(tx, lease.key, rules, GIVEN_BACK)
                await lanes.release(tx, [lease], await messages.head_due(tx, lease.key))
            case _:
                await lanes.release(tx, [lease], None)
    for row in jobs:
        await tx.run("requeue_job", id=row["id"], delay=span(0), given_back=1, last_error=None)
        tx.wake(Work.JOB)
    await tx.run("delete_instance", worker=worker)
    return len(held_lanes) + len(jobs)


async def _beat(tx: Transaction, worker: WorkerId, process: str, *, ready: bool) -> Mapping[WorkerId, Instance]:
    await tx.run("beat", worker=worker, process=process, ready=ready)
    others = await tx.all("other_instances", me=worker)
    return {WorkerId(row["worker"]): Instance(row["process"], row["beats"]) for row in others}


async def _bury(tx: Transaction, worker: WorkerId, beats: int) -> bool:
    return bool(await tx.count("delete_instance_if_still", worker=worker, beats=beats))
