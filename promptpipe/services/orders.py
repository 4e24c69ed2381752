"""Operators' orders: put into a participant's mailbox, and waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from promptpipe.model.errors import PreconditionError, StillWaitingError
from promptpipe.model.orders import Standing

if TYPE_CHECKING:
    from promptpipe.model.ids import EventId
    from promptpipe.ports.orders import OrderStore

FIRST_LOOK_SECONDS = 0.005
LAST_LOOK_SECONDS = 0.25
"""Between looks: twice as long each time, from the first to the last."""

PATIENCE_SECONDS = 150.0
"""After which whoever set no deadline is told that the order waits. One event holds up a mailbox for two minutes."""


async def carried_out(store: OrderStore, event_id: EventId, patience: float = PATIENCE_SECONDS) -> None:
    """Return when an order has been carried out, by whatever instance.

    Raise `PreconditionError` when it was refused or set aside, and `StillWaitingError` after *patience* seconds.
    """
    pause = FIRST_LOOK_SECONDS
    with trio.move_on_after(patience):
        while (status := await store.status(event_id)).standing is Standing.WAITING:
            await trio.sleep(pause)
            pause = min(2 * pause, LAST_LOOK_SECONDS)
        if status.standing is Standing.REFUSED:
            raise PreconditionError(status.reason)
        if status.standing is Standing.ASIDE:
            raise PreconditionError(f"the event {event_id} could not be handled and was set aside: {status.reason}")
        return
    raise StillWaitingError(event_id)
