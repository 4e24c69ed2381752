"""Asking the right flow what an event changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.flows.flow import FlowContext
from promptpipe.model.decisions import Decision
from promptpipe.model.errors import NoHandlerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptpipe.flows.registry import FlowRegistry
    from promptpipe.model.decisions import Delivery
    from promptpipe.ports.clock import Clock


class Conversations:
    """Turns deliveries into decisions."""

    def __init__(self, flows: FlowRegistry, clock: Clock, new_id: Callable[[], str]) -> None:
        self._flows = flows
        self._clock = clock
        self._new_id = new_id

    async def decide(self, delivery: Delivery) -> Decision:
        """Return what the event's flow decides; raise `NoHandlerError` when none is there for it.

        Only active participants are talked to: for others an event is taken note of by its removal alone.
        """
        flow = self._flows.for_delivery(delivery)
        if not delivery.participant.active:
            return Decision()
        state = delivery.states.get(flow.flow_type)
        if state is None:
            raise NoHandlerError(f"the participant is not in the flow {flow.flow_type}")
        context = FlowContext(participant=delivery.participant, now=self._clock.now(), new_id=self._new_id)
        return await flow.handle(delivery.event.event, state, context)
