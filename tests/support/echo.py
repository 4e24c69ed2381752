"""A flow that says what it hears, and remembers it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from promptpipe.model.decisions import Decision, Say, StateChange
from promptpipe.model.events import Replied
from promptpipe.model.ids import MessageId
from promptpipe.model.messages import Text

if TYPE_CHECKING:
    from promptpipe.flows.flow import FlowContext
    from promptpipe.model.decisions import FlowState
    from promptpipe.model.events import Event


class EchoFlow:
    """`flows.flow.Flow`, as simple as can be, which takes *seconds* to answer."""

    flow_type = handler_type = "echo"
    initial_state = "ACTIVE"
    job_kinds = frozenset({"tick"})

    _seconds = 0.0  # for heirs that have a constructor of their own

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds

    async def handle(self, event: Event, state: FlowState, context: FlowContext) -> Decision:
        await trio.sleep(self._seconds)
        text = f"echo: {event.text}" if isinstance(event, Replied) else event.kind
        heard = [*state.data.get("heard", []), text]  # type: ignore[misc]
        return Decision(
            state=StateChange(state.flow_type, state.current_state, {"heard": heard}, state.version),
            say=(Say(id=MessageId(context.new_id()), content=Text(text)),),
        )
