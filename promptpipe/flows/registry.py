"""The flows that this service knows, by the names under which events find them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.errors import NoHandlerError
from promptpipe.model.events import PromptOrdered, Replied, TimerFired

if TYPE_CHECKING:
    from collections.abc import Iterable

    from promptpipe.flows.flow import Flow
    from promptpipe.model.decisions import Delivery


class FlowRegistry:
    """Finds the flow for an event."""

    def __init__(self, flows: Iterable[Flow]) -> None:
        self._by_type = {flow.flow_type: flow for flow in flows}
        self._by_handler = {flow.handler_type: flow for flow in self._by_type.values()}
        self._by_job_kind = {kind: flow for flow in self._by_type.values() for kind in flow.job_kinds}

    @property
    def job_kinds(self) -> frozenset[str]:
        """The kinds of timers that some flow has."""
        return frozenset(self._by_job_kind)

    def for_type(self, flow_type: str) -> Flow:
        """Return the flow of a type; raise `NoHandlerError`."""
        try:
            return self._by_type[flow_type]
        except KeyError:
            raise NoHandlerError(f"no flow is of type {flow_type}") from None

    def for_delivery(self, delivery: Delivery) -> Flow:
        """Return the flow that is to handle a delivery; raise `NoHandlerError`.

        A reply goes to the participant's response handler that comes first, a timer to the flow that has its kind.
        """
        event = delivery.event.event
        if isinstance(event, Replied):
            known = (self._by_handler.get(hook.handler_type) for hook in delivery.hooks)
            flow = next((flow for flow in known if flow is not None), None)
            if flow is None:
                raise NoHandlerError("no response handler is registered for this participant")
            return flow
        if isinstance(event, TimerFired):
            flow = self._by_job_kind.get(event.job_kind)
            if flow is None:
                raise NoHandlerError(f"no flow has timers of kind {event.job_kind}")
            return flow
        if isinstance(event, PromptOrdered):
            raise NoHandlerError("nobody prompts")
        return self.for_type(event.flow_type)
