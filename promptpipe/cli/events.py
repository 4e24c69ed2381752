"""Commands about events that could not be handled. The client is imported as in `cli.admin`."""

from __future__ import annotations

import typer

from promptpipe.cli.admin import Json, Limit, Participant
from promptpipe.cli.orders import Id
from promptpipe.cli.remote import CALL_SECONDS, Server, ask, every
from promptpipe.cli.tables import show_list

events = typer.Typer(help="Events that could not be handled and were set aside.", no_args_is_help=True)


@events.command("list")
def list_events(
    participant: Participant = None, limit: Limit = 50, server: Server = None, as_json: Json = False
) -> None:
    """List events that were set aside."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.ListEventsAsideRequest(participant_id=participant)
    items = ask(lambda channel: every(v1.FlowServiceStub(channel).list_events_aside, request, "events", limit), server)
    show_list(items, ("id", "participant_id", "kind", "attempts", "created_at", "last_error"), as_json=as_json)


@events.command("retry")
def retry_event(event_id: Id, server: Server = None) -> None:
    """Put an event at the end of its mailbox again."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.RetryEventRequest(event_id=event_id)
    ask(lambda channel: v1.FlowServiceStub(channel).retry_event(request, timeout=CALL_SECONDS), server)


@events.command("drop")
def drop_event(event_id: Id, server: Server = None) -> None:
    """Forget an event."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.DropEventRequest(event_id=event_id)
    ask(lambda channel: v1.FlowServiceStub(channel).drop_event(request, timeout=CALL_SECONDS), server)
