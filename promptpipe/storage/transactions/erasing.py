"""Erasing people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.errors import NotFoundError
from promptpipe.model.leases import Work

if TYPE_CHECKING:
    from promptpipe.model.ids import ParticipantId
    from promptpipe.storage.transactions.transaction import Transaction

ERASED = (
    "erase_mailbox_lane",
    "erase_outbox_lanes",
    "erase_flow_states",
    "erase_hooks",
    "erase_schedules",
    "erase_jobs",
    "erase_job_errors",
    "erase_job_history",
    "erase_mailbox",
    "erase_events_aside",
    "erase_receipts",
    "erase_attempts",
    "erase_messages",
    "erase_responses",
    "erase_participant",
)
"""Statements that delete what there is of a participant, in the order in which everybody locks."""


async def erase(tx: Transaction, participant_id: ParticipantId) -> None:
    """See `ParticipantStore.erase`.

    Who writes for somebody locks an address of theirs, or one of their lanes: they are done when these are locked here,
    and whoever comes after finds nobody. A lease on a lane that is gone is lost.
    """
    addresses = [row["address"] for row in await tx.all("erase_addresses", participant_id=participant_id)]
    if await tx.one("participant_to_change", id=participant_id) is None:
        if not await was_erased(tx, participant_id):
            raise NotFoundError("participant", participant_id)
        return
    keys = [row["key"] for row in await tx.all("outbox_lanes_of", participant_id=participant_id)]
    await tx.lock_lanes([(Work.MAILBOX, participant_id), *((Work.OUTBOX, key) for key in keys)])
    await tx.run("insert_tombstones", participant_id=participant_id)
    for statement in ERASED:
        await tx.run(statement, participant_id=participant_id)
    await tx.run("erase_strangers_responses", senders=addresses)


async def was_erased(tx: Transaction, id_: str) -> bool:
    """Return whether a participant or message was there once."""
    return await tx.one("tombstone", id=id_) is not None
