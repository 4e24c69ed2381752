"""Putting messages into an outbox and sending them, as far as the store is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.errors import LeaseLostError
from promptpipe.model.ids import MessageId
from promptpipe.model.messages import MessageStatus, SendRecord, Settlement, Verdict
from tests.support.database import LEASE_SECONDS
from tests.support.people import message

if TYPE_CHECKING:
    from promptpipe.model.ids import ParticipantId
    from promptpipe.model.leases import Lease
    from promptpipe.model.messages import SendOrder
    from tests.support.database import Database

ACCEPTED = Settlement(verdict=Verdict.ACCEPTED, provider_id="wamid.out")
DOUBTFUL = Settlement(verdict=Verdict.DOUBTFUL, error="ReadTimeout")
REFUSED = Settlement(verdict=Verdict.REFUSED, error="100: Invalid parameter")


async def put(db: Database, person: ParticipantId, text: str = "hello", **other: object) -> MessageId:
    sent, created = await db.store.outbox.enqueue(message(db, person, text, **other))
    assert created
    return sent.id


async def claim_lanes(db: Database) -> list[Lease]:
    return list((await db.store.outbox.claim(db.claim())).items)


async def claim_order(db: Database) -> SendOrder:
    [lease] = await claim_lanes(db)
    order = await mark(db, lease)
    assert order is not None
    return order


async def nothing_due(db: Database) -> float | None:
    """Return the seconds until a lane is due, none being due now."""
    claimed = await db.store.outbox.claim(db.claim())
    assert list(claimed.items) == []
    return claimed.next_due_in


async def status(db: Database, message_id: str) -> MessageStatus:
    return (await db.store.outbox.get(MessageId(message_id))).status


async def settle(db: Database, order: SendOrder, settlement: Settlement) -> SendOrder | None:
    return await record(db, order, settlement, LEASE_SECONDS)


async def mark(db: Database, lease: Lease, seconds: float = LEASE_SECONDS) -> SendOrder | None:
    """Mark the head of one lane."""
    [answer] = await db.store.outbox.mark_sending([lease], seconds=seconds)
    return answered(answer)


async def record(db: Database, order: SendOrder, settlement: Settlement, next_within: float | None) -> SendOrder | None:
    """Record what became of one order."""
    [answer] = await db.store.outbox.record([SendRecord(order, settlement, next_within)])
    return answered(answer)


def answered(answer: SendOrder | LeaseLostError | None) -> SendOrder | None:
    """Return an answer, or raise it."""
    if isinstance(answer, LeaseLostError):
        raise answer
    return answer


def attempts(db: Database, message_id: str) -> list[tuple[object, ...]]:
    return db.rows("SELECT n, state FROM outbox_attempts WHERE message_id = ? ORDER BY n", message_id)
