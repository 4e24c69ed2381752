"""A flow that takes note of prompts, and a language model that says what it is told to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from promptpipe.model.chat import Generated
from promptpipe.model.decisions import Decision, StateChange
from promptpipe.model.errors import GenerationError, RefusedError
from promptpipe.model.events import FlowMoved, FlowReset, MessageSent, Signal
from promptpipe.model.messages import Text, readable
from tests.support.echo import EchoFlow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from promptpipe.flows.flow import FlowContext
    from promptpipe.model.chat import ChatMessage, Tool
    from promptpipe.model.decisions import FlowState
    from promptpipe.model.events import Event, Replied
    from promptpipe.model.messages import Content
    from promptpipe.model.prompts import PromptOrder


class NotingFlow(EchoFlow):
    """`flows.flow.PromptingFlow`: echoes, has a prompt of its own, and keeps what it is told in its state."""

    async def handle(self, event: Event, state: FlowState, context: FlowContext) -> Decision:
        match event:
            case FlowMoved(target_state="NOWHERE"):
                raise RefusedError("there is no state NOWHERE")
            case FlowMoved(target_state=target):
                return _noted(state, f"moved to {target}", target)
            case MessageSent():
                return _noted(state, "sent")
            case FlowReset():
                return _noted(state, "reset", self.initial_state)
            case Signal(name="crash"):
                raise RuntimeError("crashed")
        return await super().handle(event, state, context)

    async def prompt(
        self, order: PromptOrder, content: Content | None, state: FlowState, context: FlowContext
    ) -> Decision:
        del context
        said = content or Text("a prompt of my own")
        noted = _noted(state, f"prompted: {readable(said)}")
        return replace(noted, say=(order.say(said, awaited_by=self.flow_type),))

    async def answered(
        self, reply: Replied, answer: Content | None, state: FlowState, context: FlowContext
    ) -> Decision:
        del context
        return _noted(state, f"answered: {reply.text} -> {'' if answer is None else readable(answer)}")


def _noted(state: FlowState, text: str, current: str | None = None) -> Decision:
    heard = [*state.data.get("heard", []), text]  # type: ignore[misc]
    return Decision(state=StateChange(state.flow_type, current or state.current_state, {"heard": heard}, state.version))


class ScriptedModel:
    """`ports.generator.TextGenerator`: answers with *answers* in turn, and keeps what it was asked."""

    def __init__(self, *answers: str | Generated | None) -> None:
        self.answers = list(answers)
        self.asked: list[Sequence[ChatMessage]] = []

    async def generate(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> Generated:
        del tools
        self.asked.append(tuple(messages))
        answer = self.answers.pop(0)
        if answer is None:
            raise GenerationError("the model is not there")
        return answer if isinstance(answer, Generated) else Generated(text=answer)


class Weather:
    """`flows.prompts.PromptGenerator`."""

    name = "weather"

    async def generate(self, parameters: Mapping[str, object], context: FlowContext) -> Content:
        if "place" not in parameters:
            raise RefusedError("parameters.place is missing")
        return Text(f"{context.participant.name or 'You'}: sun in {parameters['place']}")
