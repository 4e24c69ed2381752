"""Storage of operators' orders: events that somebody waits to hear the end of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from promptpipe.model.events import Order, PromptOrdered
    from promptpipe.model.ids import EventId, MessageId, ParticipantId
    from promptpipe.model.inbound import Enrollment
    from promptpipe.model.orders import OrderStatus


class OrderStore(Protocol):
    """Orders in participants' mailboxes."""

    async def place(self, participant_id: ParticipantId, order: Order) -> EventId:
        """Put an order at the end of a participant's mailbox; raise `NotFoundError`."""
        ...

    async def prompt(self, participant_id: ParticipantId, order: PromptOrdered) -> tuple[EventId | None, MessageId]:
        """Put an order for a prompt at the end of a participant's mailbox; return its event's id, and its message's.

        When a message of the last 30 days, or an order that waits, has its dedupe key, it is that one's message, and
        the event the one that waits, if any. Raise `NotFoundError`.
        """
        ...

    async def start(self, participant_id: ParticipantId, enrollment: Enrollment) -> EventId:
        """Put a participant into a flow, and have it begin; return the event's id.

        Raise `NotFoundError`, and `AlreadyExistsError` when they are in it.
        """
        ...

    async def status(self, event_id: EventId) -> OrderStatus:
        """Return where an order stands; what nobody knows any more is done."""
        ...
