"""Lanes: strictly ordered queues with one holder at a time. What they hold is in other tables."""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from promptpipe.model.errors import LeaseLostError
from promptpipe.model.leases import KEPT_SHARE, SUSPECT_FROM, Lease, Work
from promptpipe.storage.transactions.values import fences, span, to_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from promptpipe.model.leases import Claim
    from promptpipe.storage.transactions.floors import Floors
    from promptpipe.storage.transactions.transaction import Row, Transaction

KINDS = (Work.MAILBOX, Work.OUTBOX, Work.RECOVERY)
"""The kinds of lanes, in the order in which they are locked."""

LEVELS = 2
"""Of priority: replies before broadcasts."""


async def append(tx: Transaction, work: Work, keys: Sequence[str], priority: int = 0) -> list[int]:
    """Return for each of *keys* the next seq of its lane, which is due now if it was empty.

    Where this transaction may take lanes of this kind, it is leased then, and among those taken.
    """
    counts, taking = Counter(keys), tx.takings.get(work)
    rows = await tx.all(
        "append_to_lanes",
        kind=work.value,
        priority=priority,
        appended=to_json(counts),
        take=[] if taking is None else taking.among(counts),
        worker=None if taking is None else taking.claim.worker,
        lease=span(0.0 if taking is None else taking.claim.seconds),
    )
    if taking is not None:
        taking.leases += [Lease(work, row["key"], row["fence"]) for row in rows if row["taken"]]
    if any(row["due"] for row in rows):
        tx.wake(work)
    following = {row["key"]: count(row["seq"] - counts[row["key"]] + 1) for row in rows}
    return [next(following[key]) for key in keys]


class Taken(NamedTuple):
    """Lanes that were leased, those *abandoned* whose last holder vanished; and the suspect, if there was one.

    *due_in* is in how many seconds the next lane is due; None when none is in sight.
    """

    leases: list[Lease]
    suspect: Lease | None
    abandoned: frozenset[Lease]
    due_in: float | None


async def claim(tx: Transaction, work: Work, request: Claim, floors: Floors) -> Taken:
    """Lease due lanes, of replies before broadcasts the longest due; and the suspect, if one was asked for."""
    leases, abandoned, due_in = await _lease(tx, work, request, request.limit, floors, crashed=False)
    suspects: list[Lease] = []
    if request.suspect and request.thorough and len(leases) < request.limit:
        suspects, _, due_in = await _lease(tx, work, request, 1, floors, crashed=True)
    return Taken(leases, suspects[0] if suspects else None, abandoned.union(suspects), due_in)


async def _lease(
    tx: Transaction, work: Work, request: Claim, limit: int, floors: Floors, *, crashed: bool
) -> tuple[list[Lease], frozenset[Lease], float | None]:
    wanted = {
        "kind": work.value,
        "limit": limit,
        "floors": floors.of(work.value, thorough=request.thorough),
        "crashed": crashed,
        "suspect_from": SUSPECT_FROM,
        "held": list(request.held),
        "worker": request.worker,
        "lease": span(request.seconds),
    }
    soon = {"kind": work.value, "sight": span(request.sight)}
    rows, [following] = await tx.several(("claim_lanes", wanted), ("next_due_lane", soon))
    if tx.contended:
        floors.raise_to(work.value, ((row["priority"], row["was_due"], row["now"]) for row in rows))
    due_in = following["due_in"]
    leased = {Lease(work, row["key"], row["fence"]): row for row in rows}
    return (
        sorted(leased, key=lambda lease: (leased[lease]["priority"], lease.key)),
        frozenset(lease for lease, row in leased.items() if row["crashes"]),
        None if due_in is None else due_in.total_seconds(),
    )


async def check(tx: Transaction, lease: Lease) -> None:
    """Lock the lane of *lease*; raise `LeaseLostError` when it is no longer the current one."""
    [rows] = await tx.several(look(lease.work, [lease]))
    if not rows:
        raise lost(lease)


def lost(lease: Lease) -> LeaseLostError:
    """Return what says that *lease* is not the current one."""
    return LeaseLostError(f"the {lease.work.value} lane {lease.key} is no longer held under fence {lease.fence}")


def look(work: Work, leases: Sequence[Lease]) -> tuple[str, dict[str, object]]:
    """Return the statement, with its values, that locks lanes and says who holds them; `held` reads its answer."""
    return "held_lanes", {"kind": work.value, "leases": fences(leases)}


def held(work: Work, rows: Sequence[Row]) -> frozenset[Lease]:
    """Return the leases that are the current ones."""
    return frozenset(Lease(work, row["key"], row["fence"]) for row in rows)


async def keep(tx: Transaction, leases: Sequence[Lease], lease_seconds: float, *, orderly: bool) -> None:
    """Go on holding the lanes of checked leases, all of one kind, for `KEPT_SHARE` of *lease_seconds* at least.

    *orderly* says that an item was brought to its end under these leases: whoever holds the lanes is no suspect.
    """
    if leases:
        keys = [lease.key for lease in leases]
        await tx.run(
            "keep_lanes",
            kind=leases[0].work.value,
            keys=keys,
            lease=span(lease_seconds),
            kept=span(lease_seconds * KEPT_SHARE),
            orderly=int(orderly),
        )


async def release(tx: Transaction, leases: Sequence[Lease], due_at: datetime | None) -> None:
    """Release the lanes of checked leases, all of one kind; *due_at* is their heads', None when they are empty."""
    if leases:
        work = leases[0].work
        await tx.run("release_lanes", kind=work.value, keys=[lease.key for lease in leases], due_at=due_at)
        if due_at is not None:
            tx.wake(work)
