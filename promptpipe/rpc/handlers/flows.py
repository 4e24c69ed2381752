"""`FlowService`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.ids import ParticipantId
from promptpipe.rpc import convert
from promptpipe.rpc.paging import next_page_token, page_request
from promptpipe.rpc.pb.promptpipe import v1

if TYPE_CHECKING:
    from promptpipe.ports.store import ParticipantStore


class FlowHandlers(v1.FlowServiceBase):
    """See `flows.proto`."""

    def __init__(self, participants: ParticipantStore) -> None:
        self._participants = participants

    async def get_flow_state(self, message: v1.GetFlowStateRequest) -> v1.GetFlowStateResponse:
        """Return a place in a flow."""
        state = await self._participants.flow_state(ParticipantId(message.participant_id), message.flow_type)
        return v1.GetFlowStateResponse(flow_state=convert.flow_state(state))

    async def list_flow_states(self, message: v1.ListFlowStatesRequest) -> v1.ListFlowStatesResponse:
        """List places in flows."""
        whose = None if message.participant_id is None else ParticipantId(message.participant_id)
        page = await self._participants.flow_states(whose, message.flow_type, page_request(message))
        return v1.ListFlowStatesResponse(
            flow_states=[convert.flow_state(state) for state in page.items],
            next_page_token=next_page_token(message, page),
        )
