"""Conversations as operators see and move them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.errors import InvalidArgumentError, NoHandlerError
from promptpipe.model.events import FlowMoved, FlowReset, Signal
from promptpipe.model.inbound import Enrollment
from promptpipe.services import checks
from promptpipe.services.orders import carried_out

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptpipe.flows.registry import FlowRegistry
    from promptpipe.model.decisions import FlowState
    from promptpipe.model.events import Order
    from promptpipe.model.ids import ParticipantId
    from promptpipe.model.listing import Page, PageRequest
    from promptpipe.ports.orders import OrderStore
    from promptpipe.ports.store import ParticipantStore

MAX_NAME = 200
MAX_REASON = 1000


class Flows:
    """Who is where in which flow.

    What changes a place is an order in the participant's mailbox, so that it comes in its turn; whoever gave it gets
    the place after it was carried out. `orders.carried_out` says what else may come of it.
    """

    def __init__(self, flows: FlowRegistry, orders: OrderStore, participants: ParticipantStore) -> None:
        self._flows = flows
        self._orders = orders
        self._participants = participants

    def types(self) -> Mapping[str, frozenset[str]]:
        """Return the kinds of conversation, each with the kinds of its timers."""
        return self._flows.types

    async def state(self, participant_id: ParticipantId, flow_type: str) -> FlowState:
        """Return a place; raise `NotFoundError`."""
        return await self._participants.flow_state(participant_id, flow_type)

    async def states(
        self, participant_id: ParticipantId | None, flow_type: str | None, page: PageRequest
    ) -> Page[FlowState]:
        """Return places, those of the newest participants first."""
        return await self._participants.flow_states(participant_id, flow_type, page)

    async def start(self, participant_id: ParticipantId, flow_type: str) -> FlowState:
        """Put a participant into a flow and let it begin; raise `AlreadyExistsError` when they are in it."""
        try:
            flow = self._flows.for_type(flow_type)
        except NoHandlerError as error:
            raise InvalidArgumentError("flow_type", str(error)) from error
        enrollment = Enrollment(flow.flow_type, flow.handler_type, flow.initial_state)
        await carried_out(self._orders, await self._orders.start(participant_id, enrollment))
        return await self.state(participant_id, flow_type)

    async def move(self, participant_id: ParticipantId, flow_type: str, target: str, reason: str) -> FlowState:
        """Let a conversation go on elsewhere."""
        order = FlowMoved(
            flow_type=flow_type,
            target_state=checks.text("target_state", target, longest=MAX_NAME, needed=True),
            reason=checks.text("reason", reason, longest=MAX_REASON),
        )
        return await self._carry_out(participant_id, flow_type, order)

    async def reset(self, participant_id: ParticipantId, flow_type: str) -> FlowState:
        """Let a conversation begin again."""
        return await self._carry_out(participant_id, flow_type, FlowReset(flow_type=flow_type))

    async def signal(
        self, participant_id: ParticipantId, flow_type: str, name: str, payload: Mapping[str, object]
    ) -> FlowState:
        """Tell a flow of something that happened elsewhere."""
        checks.text("name", name, longest=MAX_NAME, needed=True)
        return await self._carry_out(participant_id, flow_type, Signal(flow_type=flow_type, name=name, payload=payload))

    async def _carry_out(self, participant_id: ParticipantId, flow_type: str, order: Order) -> FlowState:
        await self.state(participant_id, flow_type)
        await carried_out(self._orders, await self._orders.place(participant_id, order))
        return await self.state(participant_id, flow_type)
