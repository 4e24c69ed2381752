"""`FlowService`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.ids import EventId, ParticipantId
from promptpipe.rpc import convert
from promptpipe.rpc.paging import next_page_token, page_request
from promptpipe.rpc.pb.promptpipe import v1

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from promptpipe.ports.aside import AsideStore
    from promptpipe.ports.store import ParticipantStore


class FlowHandlers(v1.FlowServiceBase):
    """See `flows.proto`. *flow_types* are the kinds of conversation, each with those of its timers."""

    def __init__(
        self, flow_types: Mapping[str, Collection[str]], participants: ParticipantStore, aside: AsideStore
    ) -> None:
        self._flow_types = flow_types
        self._participants = participants
        self._aside = aside

    async def list_flow_types(self, message: v1.ListFlowTypesRequest) -> v1.ListFlowTypesResponse:
        """List the kinds of conversation."""
        del message
        kinds = sorted(self._flow_types.items())
        return v1.ListFlowTypesResponse(
            flow_types=[v1.FlowType(name=name, job_kinds=sorted(job_kinds)) for name, job_kinds in kinds]
        )

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
