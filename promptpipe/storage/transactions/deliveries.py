"""Handing out events with all that handling them needs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from promptpipe.model.decisions import Delivery
from promptpipe.model.errors import FlowError, NotFoundError
from promptpipe.model.events import StoredEvent, decoded
from promptpipe.model.ids import EventId
from promptpipe.storage.transactions import lanes, mailbox_events, participants
from promptpipe.storage.transactions.values import from_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from promptpipe.model.leases import Lease
    from promptpipe.storage.transactions.participants import Conversation
    from promptpipe.storage.transactions.transaction import Row, Transaction

OUT_OF_ATTEMPTS = "out of attempts: its worker vanished in the last that was left"


async def hand_out(tx: Transaction, depths: Mapping[Lease, int]) -> dict[str, Delivery | None]:
    """Hand out the heads of held mailboxes, setting aside what cannot be; release those that are empty.

    *depths* says how many events of each are handed out at once. Return them by the mailboxes' keys.
    """
    deliveries: dict[str, Delivery | None] = {lease.key: None for lease in depths}
    waiting = list(depths)
    while waiting:
        keys = [lease.key for lease in waiting]
        rows, *about = await tx.several(
            mailbox_events.look(keys, max(depths[lease] for lease in waiting)), *participants.look(keys)
        )
        events, conversations = mailbox_events.by_mailbox(rows), participants.conversations(*about)
        await lanes.release(tx, [lease for lease in waiting if lease.key not in events], None)
        waiting = [lease for lease in waiting if lease.key in events]
        for lease in waiting:
            [head, *behind] = events[lease.key][: depths[lease]]
            try:
                delivery = _delivery(lease, head, conversations.get(lease.key))
            except NotFoundError:
                await mailbox_events.remove(tx, [head["id"]])  # of somebody who was erased
            except (FlowError, ValueError) as error:
                await mailbox_events.set_aside(tx, head, str(error))
            else:
                deliveries[lease.key] = replace(delivery, behind=tuple(_readable(behind)), depth=depths[lease])
        fit = [lease for lease in waiting if deliveries[lease.key] is not None]
        if fit:
            await tx.run("hand_out_events", ids=[events[lease.key][0]["id"] for lease in fit])
        waiting = [lease for lease in waiting if deliveries[lease.key] is None]
    return deliveries


def _delivery(lease: Lease, head: Row, conversation: Conversation | None) -> Delivery:
    """Return a head as it is handed out; raise what says why it cannot be."""
    if head["attempt"] >= head["max_attempts"]:
        raise FlowError(OUT_OF_ATTEMPTS)
    if conversation is None:
        raise NotFoundError("participant", lease.key)
    return Delivery(
        lease=lease,
        event=_stored(head, attempt=head["attempt"] + 1),
        participant=conversation.participant,
        states=conversation.states(),
        hooks=conversation.hooks(),
    )


def _readable(rows: Sequence[Row]) -> Iterator[StoredEvent]:
    """Give events that wait behind a head, until one comes that is to be looked at when it is the head."""
    for row in rows:
        try:
            yield _stored(row, attempt=1)
        except (FlowError, ValueError):
            return


def _stored(row: Row, *, attempt: int) -> StoredEvent:
    return StoredEvent(
        id=EventId(row["id"]),
        attempt=attempt,
        blocked=row["blocked"].total_seconds(),
        created_at=row["created_at"],
        event=decoded(row["kind"], from_json(row["payload"])),
    )
