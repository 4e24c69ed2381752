"""Lanes: strictly ordered queues with one holder at a time. What they hold is in other tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from promptpipe.model.errors import LeaseLostError
from promptpipe.model.leases import SUSPECT_FROM, Lease, Work
from promptpipe.storage.sqlite.values import seconds, span

if TYPE_CHECKING:
    from promptpipe.model.leases import Claim
    from promptpipe.storage.sqlite.transaction import Transaction

LANE_PRIORITIES = {Work.MAILBOX: (0,), Work.OUTBOX: (0, 1)}


def append(tx: Transaction, work: Work, key: str, priority: int = 0) -> int:
    """Return the next seq of a lane, which is due now if it was empty."""
    seq: int = tx.the("append_to_lane", kind=work.value, key=key, priority=priority, now=tx.now)["seq"]
    tx.wake(work)
    return seq


def claim(tx: Transaction, work: Work, request: Claim) -> tuple[list[Lease], Lease | None]:
    """Lease due lanes, replies before broadcasts and then the longest due; and the suspect, if one was asked for."""
    wanted = {
        "kind": work.value,
        "now": tx.now,
        "held": json.dumps(list(request.held)),
        "suspect_from": SUSPECT_FROM,
    }
    keys: list[str] = []
    for priority in LANE_PRIORITIES[work]:
        if (room := request.limit - len(keys)) > 0:
            keys += [row["key"] for row in tx.all("due_lanes", priority=priority, limit=room, **wanted)]
    suspects: list[str] = []
    if request.suspect and len(keys) < request.limit:
        rows = [tx.one("due_suspect_lane", priority=priority, **wanted) for priority in LANE_PRIORITIES[work]]
        suspects = [row["key"] for row in rows if row is not None][:1]
    if not keys and not suspects:
        return [], None
    fence = tx.next_fence()
    tx.run(
        "lease_lanes",
        kind=work.value,
        keys=json.dumps(keys + suspects),
        worker=request.worker,
        fence=fence,
        lease_end=tx.now + span(request.seconds),
    )
    suspect = Lease(work, suspects[0], fence) if suspects else None
    return [Lease(work, key, fence) for key in keys], suspect


def next_due_in(tx: Transaction, work: Work) -> float | None:
    """Return the seconds until the next lane is due; None when none is in sight."""
    rows = [
        tx.one("next_due_lane", kind=work.value, priority=priority, now=tx.now) for priority in LANE_PRIORITIES[work]
    ]
    dues = [row["due_at"] for row in rows if row is not None and row["due_at"] is not None]
    return seconds(min(dues) - tx.now) if dues else None


def check(tx: Transaction, lease: Lease) -> int:
    """Return the end of *lease*; raise `LeaseLostError` when it is no longer the current one."""
    row = tx.one("held_lane", kind=lease.work.value, key=lease.key, fence=lease.fence)
    if row is None:
        raise LeaseLostError(f"the {lease.work.value} lane {lease.key} is no longer held under fence {lease.fence}")
    end: int = row["due_at"]
    return end


def keep(tx: Transaction, lease: Lease, lease_seconds: float, *, orderly: bool) -> None:
    """Go on holding the lane of a checked lease, for *lease_seconds* from now.

    *orderly* says that an item was brought to its end under this lease: whoever holds the lane is no suspect.
    """
    tx.run(
        "keep_lane",
        kind=lease.work.value,
        key=lease.key,
        lease_end=tx.now + span(lease_seconds),
        orderly=int(orderly),
    )


def release(tx: Transaction, lease: Lease, due_at: int | None) -> None:
    """Release the lane of a checked lease; *due_at* is its head's, None when it is empty."""
    tx.run("release_lane", kind=lease.work.value, key=lease.key, due_at=due_at)
    if due_at is not None:
        tx.wake(lease.work)
