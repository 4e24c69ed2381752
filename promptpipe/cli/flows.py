"""Commands about conversations. The client is imported as in `cli.admin`."""

from __future__ import annotations

from typing import Annotated

import typer

from promptpipe.cli.admin import Json, Limit, Participant
from promptpipe.cli.prompts import json_object
from promptpipe.cli.remote import ORDER_SECONDS, Server, answer, ask, every
from promptpipe.cli.tables import show_list, show_one

flows = typer.Typer(help="Conversations: who is where in which flow.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="The participant's id.")]
Flow = Annotated[str, typer.Option("--flow", help="Which flow.")]

CONVERSATION = "conversation"


@flows.command("types")
def list_types(server: Server = None, as_json: Json = False) -> None:
    """List the kinds of conversation."""
    from promptpipe.client import v1  # noqa: PLC0415

    found = answer(v1.FlowServiceStub, "list_flow_types", v1.ListFlowTypesRequest(), server)
    show_list(found.flow_types, ("name", "job_kinds"), as_json=as_json)


@flows.command("list")
def list_states(
    flow: Annotated[str | None, typer.Option(help="Only those in this flow.")] = None,
    participant: Participant = None,
    limit: Limit = 50,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """List who is where."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.ListFlowStatesRequest(flow_type=flow, participant_id=participant)
    items = ask(
        lambda channel: every(v1.FlowServiceStub(channel).list_flow_states, request, "flow_states", limit), server
    )
    show_list(items, ("participant_id", "flow_type", "current_state", "version", "updated_at"), as_json=as_json)


@flows.command("get")
def get_state(participant_id: Id, flow: Flow = CONVERSATION, server: Server = None, as_json: Json = False) -> None:
    """Show a participant's place in a flow, with what the flow remembers."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.GetFlowStateRequest(participant_id=participant_id, flow_type=flow)
    show_one(answer(v1.FlowServiceStub, "get_flow_state", request, server).flow_state, as_json=as_json)


@flows.command("start")
def start_flow(participant_id: Id, flow: Flow = CONVERSATION, server: Server = None, as_json: Json = False) -> None:
    """Put a participant into a flow and let it begin."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.StartFlowRequest(participant_id=participant_id, flow_type=flow)
    _order("start_flow", request, server, as_json)


@flows.command("move")
def move(
    participant_id: Id,
    target: Annotated[str, typer.Argument(metavar="STATE", help="Where to, as the flow calls it.")],
    reason: Annotated[str, typer.Option(help="Why, for the records.")] = "",
    flow: Flow = CONVERSATION,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Let a conversation go on elsewhere."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.TransitionFlowRequest(
        participant_id=participant_id, flow_type=flow, target_state=target, reason=reason
    )
    _order("transition_flow", request, server, as_json)


@flows.command("reset")
def reset(participant_id: Id, flow: Flow = CONVERSATION, server: Server = None, as_json: Json = False) -> None:
    """Let a conversation begin again, its timers canceled."""
    from promptpipe.client import v1  # noqa: PLC0415

    _order("reset_flow", v1.ResetFlowRequest(participant_id=participant_id, flow_type=flow), server, as_json)


@flows.command("signal")
def signal(
    participant_id: Id,
    name: Annotated[str, typer.Argument(help="The event's name, as the flow knows it.")],
    payload: Annotated[str, typer.Option(help="What goes with it: a JSON object.")] = "{}",
    flow: Flow = CONVERSATION,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Tell a flow of something that happened elsewhere."""
    from promptpipe.client import Struct, v1  # noqa: PLC0415

    values = Struct.from_dict(json_object("--payload", payload))
    request = v1.SendEventRequest(participant_id=participant_id, flow_type=flow, name=name, payload=values)
    _order("send_event", request, server, as_json)


def _order(method: str, request: object, server: str | None, as_json: bool) -> None:
    from promptpipe.client import v1  # noqa: PLC0415

    given = answer(v1.FlowServiceStub, method, request, server, seconds=ORDER_SECONDS)
    show_one(given.flow_state, as_json=as_json)
