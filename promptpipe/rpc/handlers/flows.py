"""`FlowService`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.ids import EventId, ParticipantId
from promptpipe.rpc import convert
from promptpipe.rpc.paging import next_page_token, page_request
from promptpipe.rpc.pb.promptpipe import v1

if TYPE_CHECKING:
    from promptpipe.ports.aside import AsideStore
    from promptpipe.services.flows import Flows


class FlowHandlers(v1.FlowServiceBase):
    """See `flows.proto`."""

    def __init__(self, flows: Flows, aside: AsideStore) -> None:
        self._flows = flows
        self._aside = aside

    async def list_flow_types(self, message: v1.ListFlowTypesRequest) -> v1.ListFlowTypesResponse:
        """List the kinds of conversation."""
        del message
        kinds = sorted(self._flows.types().items())
        return v1.ListFlowTypesResponse(
            flow_types=[v1.FlowType(name=name, job_kinds=sorted(job_kinds)) for name, job_kinds in kinds]
        )

    async def get_flow_state(self, message: v1.GetFlowStateRequest) -> v1.GetFlowStateResponse:
        """Return a place in a flow."""
        state = await self._flows.state(ParticipantId(message.participant_id), message.flow_type)
        return v1.GetFlowStateResponse(flow_state=convert.flow_state(state))

    async def list_flow_states(self, message: v1.ListFlowStatesRequest) -> v1.ListFlowStatesResponse:
        """List places in flows."""
        whose = None if message.participant_id is None else ParticipantId(message.participant_id)
        page = await self._flows.states(whose, message.flow_type, page_request(message))
        return v1.ListFlowStatesResponse(
            flow_states=[convert.flow_state(state) for state in page.items],
            next_page_token=next_page_token(message, page),
        )

    async def start_flow(self, message: v1.StartFlowRequest) -> v1.StartFlowResponse:
        """Put a participant into a flow."""
        state = await self._flows.start(ParticipantId(message.participant_id), message.flow_type)
        return v1.StartFlowResponse(flow_state=convert.flow_state(state))

    async def transition_flow(self, message: v1.TransitionFlowRequest) -> v1.TransitionFlowResponse:
        """Move a conversation."""
        whose = ParticipantId(message.participant_id)
        state = await self._flows.move(whose, message.flow_type, message.target_state, message.reason)
        return v1.TransitionFlowResponse(flow_state=convert.flow_state(state))

    async def reset_flow(self, message: v1.ResetFlowRequest) -> v1.ResetFlowResponse:
        """Let a conversation begin again."""
        state = await self._flows.reset(ParticipantId(message.participant_id), message.flow_type)
        return v1.ResetFlowResponse(flow_state=convert.flow_state(state))

    async def send_event(self, message: v1.SendEventRequest) -> v1.SendEventResponse:
        """Hand an event to a flow."""
        payload = convert.json_object("payload", message.payload)
        whose = ParticipantId(message.participant_id)
        state = await self._flows.signal(whose, message.flow_type, message.name, payload)
        return v1.SendEventResponse(flow_state=convert.flow_state(state))

    async def list_events_aside(self, message: v1.ListEventsAsideRequest) -> v1.ListEventsAsideResponse:
        """List events that were set aside."""
        whose = None if message.participant_id is None else ParticipantId(message.participant_id)
        page = await self._aside.list(whose, page_request(message))
        return v1.ListEventsAsideResponse(
            events=[convert.event_aside(event) for event in page.items], next_page_token=next_page_token(message, page)
        )

    async def retry_event(self, message: v1.RetryEventRequest) -> v1.RetryEventResponse:
        """Put an event back into its mailbox."""
        await self._aside.retry(EventId(message.event_id))
        return v1.RetryEventResponse()

    async def drop_event(self, message: v1.DropEventRequest) -> v1.DropEventResponse:
        """Forget an event."""
        await self._aside.drop(EventId(message.event_id))
        return v1.DropEventResponse()
