"""Events that were set aside."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from promptpipe.model.errors import NotFoundError, PreconditionError
from promptpipe.model.events import EventAside
from promptpipe.model.ids import EventId, ParticipantId
from promptpipe.model.leases import Work
from promptpipe.storage.transactions import lanes
from promptpipe.storage.transactions.pages import page
from promptpipe.storage.transactions.values import from_json

if TYPE_CHECKING:
    from promptpipe.model.listing import Page, PageRequest
    from promptpipe.storage.transactions.transaction import Database, Row, Transaction


class AsideTransactions:
    """`ports.aside.AsideStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, participant_id: ParticipantId | None, page: PageRequest) -> Page[EventAside]:
        """See `AsideStore.list`."""
        return await self._database.read(partial(_list, participant_id=participant_id, request=page))

    async def count(self) -> int:
        """See `AsideStore.count`."""
        return await self._database.read(_count)

    async def retry(self, event_id: EventId) -> None:
        """See `AsideStore.retry`."""
        await self._database.write(partial(_retry, event_id=event_id))

    async def drop(self, event_id: EventId) -> None:
        """See `AsideStore.drop`."""
        await self._database.write(partial(_drop, event_id=event_id))


async def _list(tx: Transaction, participant_id: ParticipantId | None, request: PageRequest) -> Page[EventAside]:
    if participant_id is None:
        return await page(tx, "list_events_aside", request, _as_event_aside)
    return await page(tx, "list_events_aside_of", request, _as_event_aside, participant_id=participant_id)


def _as_event_aside(row: Row) -> EventAside:
    return EventAside(
        id=EventId(row["id"]),
        participant_id=ParticipantId(row["participant_id"]),
        kind=row["kind"],
        payload=from_json(row["payload"]),
        attempts=row["attempt"],
        last_error=row["last_error"],
        created_at=row["created_at"],
    )


async def _count(tx: Transaction) -> int:
    count: int = (await tx.the("count_events_aside"))["count"]
    return count


async def _retry(tx: Transaction, event_id: EventId) -> None:
    row = await _row(tx, event_id)
    [seq] = await lanes.append(tx, Work.MAILBOX, [row["participant_id"]])
    # Another may have done so while this waited for the lane.
    if await tx.one("return_event", id=event_id, seq=seq) is None:
        raise _not_aside(event_id)


async def _drop(tx: Transaction, event_id: EventId) -> None:
    if await tx.one("drop_event_aside", id=event_id) is None:
        await _row(tx, event_id)
        raise _not_aside(event_id)


async def _row(tx: Transaction, event_id: EventId) -> Row:
    row = await tx.one("event", id=event_id)
    if row is None:
        raise NotFoundError("event", event_id)
    return row


def _not_aside(event_id: EventId) -> PreconditionError:
    return PreconditionError(f"the event {event_id} was not set aside: it is in its mailbox")
