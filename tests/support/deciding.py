"""Deciding about one delivery, as far as the store is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.decisions import Decided

if TYPE_CHECKING:
    from promptpipe.model.decisions import Decision, Delivery
    from tests.support.database import Database


async def decide(db: Database, delivery: Delivery, decision: Decision, *, next_within: float | None) -> Delivery | None:
    """Apply a decision and return the next delivery of the same mailbox; raise why it could not be applied."""
    return await commit(db, Decided(delivery, decision, next_within))


async def commit(db: Database, decided: Decided) -> Delivery | None:
    """Apply what was decided about a delivery, and return the next; raise why it could not be applied."""
    [answer] = await db.store.mailboxes.decide([decided])
    if isinstance(answer, Exception):
        raise answer
    return answer
