"""Operators' orders: events that somebody waits to hear the end of."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from promptpipe.model.errors import AlreadyExistsError, NotFoundError
from promptpipe.model.events import Enrolled
from promptpipe.model.ids import EventId, MessageId
from promptpipe.model.orders import OrderStatus, Standing
from promptpipe.storage.transactions import mailbox_events, messages, participants
from promptpipe.storage.transactions.values import from_json

if TYPE_CHECKING:
    from promptpipe.model.events import Event, Order, PromptOrdered
    from promptpipe.model.ids import ParticipantId
    from promptpipe.model.inbound import Enrollment
    from promptpipe.storage.transactions.transaction import Database, Transaction


class OrderTransactions:
    """`ports.orders.OrderStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def place(self, participant_id: ParticipantId, order: Order) -> EventId:
        """See `OrderStore.place`."""
        return await self._database.write(partial(_place, participant_id=participant_id, order=order))

    async def prompt(self, participant_id: ParticipantId, order: PromptOrdered) -> tuple[EventId | None, MessageId]:
        """See `OrderStore.prompt`."""
        return await self._database.write(partial(_prompt, participant_id=participant_id, order=order))

    async def start(self, participant_id: ParticipantId, enrollment: Enrollment) -> EventId:
        """See `OrderStore.start`."""
        return await self._database.write(partial(_start, participant_id=participant_id, enrollment=enrollment))

    async def status(self, event_id: EventId) -> OrderStatus:
        """See `OrderStore.status`."""
        return await self._database.read(partial(_status, event_id=event_id))


async def _place(tx: Transaction, participant_id: ParticipantId, order: Event) -> EventId:
    if await tx.one("participant_to_write_to", id=participant_id) is None:
        raise NotFoundError("participant", participant_id)
    [event_id] = await mailbox_events.append(tx, [(participant_id, order)])
    return event_id


async def _prompt(
    tx: Transaction, participant_id: ParticipantId, order: PromptOrdered
) -> tuple[EventId | None, MessageId]:
    if order.dedupe_key is not None:
        key = mailbox_events.prompt_key(order.dedupe_key)
        await tx.lock_names([key])
        known = await messages.with_key(tx, order.dedupe_key)
        if known is not None:
            return None, MessageId(known["id"])
        waiting = await tx.one("waiting_timers", dedupe_keys=[key])
        if waiting is not None:
            return EventId(waiting["id"]), MessageId(str(from_json(waiting["payload"])["message_id"]))
    return await _place(tx, participant_id, order), order.message_id


async def _start(tx: Transaction, participant_id: ParticipantId, enrollment: Enrollment) -> EventId:
    if await tx.one("participant_to_write_to", id=participant_id) is None:
        raise NotFoundError("participant", participant_id)
    if not await participants.enter(tx, participant_id, enrollment):
        name = f"{participant_id}/{enrollment.flow_type}"
        raise AlreadyExistsError("flow state", name, f"the participant is in the flow {enrollment.flow_type}")
    return await _place(tx, participant_id, Enrolled(flow_type=enrollment.flow_type))


async def _status(tx: Transaction, event_id: EventId) -> OrderStatus:
    row = await tx.the("order_standing", id=event_id)
    if row["there"]:
        return OrderStatus(Standing.WAITING) if row["waits"] else OrderStatus(Standing.ASIDE, row["last_error"] or "")
    if row["reason"] is not None:
        return OrderStatus(Standing.REFUSED, row["reason"])
    return OrderStatus(Standing.DONE)
