"""Asking who is to handle an event what it changes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from promptpipe.flows.flow import FlowContext
from promptpipe.model.decisions import Decision, Say
from promptpipe.model.errors import NoHandlerError, RefusedError
from promptpipe.model.events import Order, Replied
from promptpipe.model.ids import MessageId
from promptpipe.model.prompts import ConversationPrompt, is_prompt, order_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptpipe.flows.flow import Flow
    from promptpipe.flows.prompts import Answer, PromptComposer
    from promptpipe.flows.registry import FlowRegistry
    from promptpipe.model.decisions import Delivery, FlowState, Hook
    from promptpipe.model.prompts import PromptOrder
    from promptpipe.ports.clock import Clock


ORDERS = get_args(Order)


class Conversations:
    """Turns deliveries into decisions."""

    def __init__(self, flows: FlowRegistry, prompts: PromptComposer, clock: Clock, new_id: Callable[[], str]) -> None:
        self._flows = flows
        self._prompts = prompts
        self._clock = clock
        self._new_id = new_id

    async def decide(self, delivery: Delivery) -> Decision:
        """Return what an event changes; raise `NoHandlerError` when nobody is there for it.

        Only active participants are talked to: for others an event is taken note of by its removal alone, and an
        operator's order is refused.
        """
        is_order = isinstance(delivery.event.event, ORDERS)
        if not delivery.participant.active:
            status = delivery.participant.status.value
            return Decision(refusal=f"the participant is {status}" if is_order else None)
        try:
            return await self._decide(delivery)
        except RefusedError as error:
            if not is_order:
                raise
            return Decision(refusal=str(error))

    async def _decide(self, delivery: Delivery) -> Decision:
        context = FlowContext(participant=delivery.participant, now=self._clock.now(), new_id=self._new_id)
        event = delivery.event.event
        if isinstance(event, Replied):
            return await self._reply(event, delivery, context)
        if is_prompt(event):
            return await self._prompt(order_of(event, self._new_id), delivery, context)
        flow = self._flows.for_event(event)
        return await flow.handle(event, _state(flow, delivery), context)

    async def _reply(self, reply: Replied, delivery: Delivery, context: FlowContext) -> Decision:
        """Hand a reply to the participant's response handlers in their order, until one takes it."""
        for hook in delivery.hooks:
            handler = self._flows.handler_of(hook)
            if handler is not None:
                answer = await handler.respond(reply, hook, context) if reply.conversational else None
                if answer is not None:
                    return await self._answered(reply, hook, answer, delivery, context)
            elif (flow := self._flows.flow_of(hook)) is not None:
                return await flow.handle(reply, _state(flow, delivery), context)
        raise NoHandlerError("no response handler is registered for this participant")

    async def _answered(
        self, reply: Replied, hook: Hook, answer: Answer, delivery: Delivery, context: FlowContext
    ) -> Decision:
        decision = Decision()
        prompting = self._flows.prompting(delivery)
        if prompting is not None:
            flow, state = prompting
            decision = await flow.answered(reply, answer.content, state, context)
        said = () if answer.content is None else (Say(id=MessageId(self._new_id()), content=answer.content),)
        done = () if answer.waits else (hook.handler_type,)
        return replace(decision, say=(*said, *decision.say), unhook=(*decision.unhook, *done))

    async def _prompt(self, order: PromptOrder, delivery: Delivery, context: FlowContext) -> Decision:
        prompting = self._flows.prompting(delivery)
        if prompting is None and isinstance(order.prompt, ConversationPrompt):
            raise RefusedError("the participant is in no flow that has prompts of its own")
        composed = await self._prompts.compose(order, context)
        if prompting is not None:
            flow, state = prompting
            decision = await flow.prompt(order, composed.content, state, context)
        else:
            assert composed.content is not None  # noqa: S101  only a flow's own prompts have none
            decision = Decision(say=(order.say(composed.content),))
        return replace(decision, hook=(*decision.hook, *composed.hooks))


def _state(flow: Flow, delivery: Delivery) -> FlowState:
    state = delivery.states.get(flow.flow_type)
    if state is None:
        raise NoHandlerError(f"the participant is not in the flow {flow.flow_type}")
    return state
