"""Commands that ask a running service.

The client and its generated messages are imported by those who use them: all other commands start faster without.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, TypeVar

import typer

from promptpipe.cli.remote import CALL_SECONDS, Server, ask, every
from promptpipe.cli.tables import show_list, show_one
from promptpipe.model.jobs import JobStatus
from promptpipe.model.messages import MessageStatus
from promptpipe.model.participants import ParticipantStatus

participants = typer.Typer(help="People who take part.", no_args_is_help=True)
jobs = typer.Typer(help="Jobs and timers.", no_args_is_help=True)
outbox = typer.Typer(help="Outgoing messages.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option(min=1, help="Print at most so many, the newest first.")]
Participant = Annotated[str | None, typer.Option(help="Only those of this participant.", metavar="ID")]

E = TypeVar("E", bound=Enum)


@participants.command("list")
def list_participants(
    status: ParticipantStatus | None = None, limit: Limit = 50, server: Server = None, as_json: Json = False
) -> None:
    """List participants."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.ListParticipantsRequest(status=_status(v1.ParticipantStatus, status))
    items = ask(
        lambda channel: every(v1.ParticipantServiceStub(channel).list_participants, request, "participants", limit),
        server,
    )
    show_list(items, ("id", "status", "phone_number", "name", "timezone", "created_at"), as_json=as_json)


@participants.command("get")
def get_participant(
    who: Annotated[str, typer.Argument(metavar="ID|NUMBER", help="Their id, or a number of theirs with its +.")],
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Show one participant."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.GetParticipantRequest(**{"phone_number" if who.startswith("+") else "participant_id": who})
    answer = ask(
        lambda channel: v1.ParticipantServiceStub(channel).get_participant(request, timeout=CALL_SECONDS), server
    )
    show_one(answer.participant, as_json=as_json)


@jobs.command("list")
def list_jobs(
    status: JobStatus | None = None,
    kind: Annotated[str | None, typer.Option(help="Only those of this kind.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only those in this queue.")] = None,
    participant: Participant = None,
    limit: Limit = 50,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """List jobs, live and ended."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.ListJobsRequest(
        status=_status(v1.JobStatus, status), kind=kind, queue=queue, participant_id=participant
    )
    items = ask(lambda channel: every(v1.JobServiceStub(channel).list_jobs, request, "jobs", limit), server)
    columns = ("id", "kind", "queue", "status", "run_at", "attempt", "dedupe_key", "last_error")
    show_list(items, columns, as_json=as_json)


@jobs.command("get")
def get_job(job_id: Annotated[str, typer.Argument(metavar="ID")], server: Server = None, as_json: Json = False) -> None:
    """Show one job."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.GetJobRequest(job_id=job_id)
    answer = ask(lambda channel: v1.JobServiceStub(channel).get_job(request, timeout=CALL_SECONDS), server)
    show_one(answer.job, as_json=as_json)


@outbox.command("list")
def list_messages(
    status: MessageStatus | None = None,
    participant: Participant = None,
    limit: Limit = 50,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """List outgoing messages."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.ListMessagesRequest(status=_status(v1.OutboxMessageStatus, status), participant_id=participant)
    items = ask(lambda channel: every(v1.OutboxServiceStub(channel).list_messages, request, "messages", limit), server)
    columns = ("id", "recipient", "status", "attempts", "created_at", "text", "last_error")
    show_list(items, columns, as_json=as_json)


@outbox.command("get")
def get_message(
    message_id: Annotated[str, typer.Argument(metavar="ID")], server: Server = None, as_json: Json = False
) -> None:
    """Show one outgoing message."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.GetMessageRequest(message_id=message_id)
    answer = ask(lambda channel: v1.OutboxServiceStub(channel).get_message(request, timeout=CALL_SECONDS), server)
    show_one(answer.message, as_json=as_json)


def _status(kind: type[E], status: Enum | None) -> E | None:
    return None if status is None else kind[status.name]
