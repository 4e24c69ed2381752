"""The flows and response handlers that this service knows, by the names under which events find them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from promptpipe.flows.flow import PromptingFlow
from promptpipe.model.errors import NoHandlerError
from promptpipe.model.events import PromptOrdered, Replied, TimerFired
from promptpipe.model.prompts import SCHEDULED_PROMPT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from promptpipe.flows.flow import Flow
    from promptpipe.flows.prompts import ResponseHandler
    from promptpipe.model.decisions import Delivery, FlowState, Hook
    from promptpipe.model.events import Event

T = TypeVar("T")


class FlowRegistry:
    """Finds who is to handle an event. A name that two have is a `ValueError`."""

    def __init__(self, flows: Iterable[Flow], handlers: Iterable[ResponseHandler] = ()) -> None:
        self._by_type: dict[str, Flow] = {}
        self._by_handler: dict[str, Flow] = {}
        self._by_job_kind: dict[str, Flow] = {}
        self._handlers: dict[str, ResponseHandler] = {}
        for flow in flows:
            _add(self._by_type, flow.flow_type, flow)
            _add(self._by_handler, flow.handler_type, flow)
            for kind in flow.job_kinds:
                _add(self._by_job_kind, kind, flow)
        for handler in handlers:
            _add(self._handlers, handler.handler_type, handler)
            _refuse(handler.handler_type, self._by_handler)
        _refuse(SCHEDULED_PROMPT, self._by_job_kind)

    @property
    def types(self) -> dict[str, frozenset[str]]:
        """The kinds of conversation, each with the kinds of its timers."""
        return {flow_type: flow.job_kinds for flow_type, flow in self._by_type.items()}

    @property
    def job_kinds(self) -> frozenset[str]:
        """The kinds of timers: those that some flow has, and that of prompts."""
        return frozenset({*self._by_job_kind, SCHEDULED_PROMPT})

    def for_type(self, flow_type: str) -> Flow:
        """Return the flow of a type; raise `NoHandlerError`."""
        try:
            return self._by_type[flow_type]
        except KeyError:
            raise NoHandlerError(f"no flow is of type {flow_type}") from None

    def for_event(self, event: Event) -> Flow:
        """Return the flow that an event other than a reply or a prompt is for; raise `NoHandlerError`."""
        if isinstance(event, TimerFired):
            flow = self._by_job_kind.get(event.job_kind)
            if flow is None:
                raise NoHandlerError(f"no flow has timers of kind {event.job_kind}")
            return flow
        assert not isinstance(event, Replied | PromptOrdered)  # noqa: S101  asked for by other methods
        return self.for_type(event.flow_type)

    def handler_of(self, hook: Hook) -> ResponseHandler | None:
        """Return the handler, other than a flow, that has a hook."""
        return self._handlers.get(hook.handler_type)

    def flow_of(self, hook: Hook) -> Flow | None:
        """Return the flow that has a hook."""
        return self._by_handler.get(hook.handler_type)

    def prompting(self, delivery: Delivery) -> tuple[PromptingFlow, FlowState] | None:
        """Return the flow in which a participant is that cares for prompts, and their state in it."""
        for flow_type, state in delivery.states.items():
            flow = self._by_type.get(flow_type)
            if isinstance(flow, PromptingFlow):
                return flow, state
        return None


def _add(known: dict[str, T], name: str, item: T) -> None:
    _refuse(name, known)
    known[name] = item


def _refuse(name: str, known: Collection[str]) -> None:
    if name in known:
        raise ValueError(f"the name {name} is taken")
