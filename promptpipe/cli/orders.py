"""Commands that ask a running service to change something, and those about queues."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from promptpipe.cli.admin import Json, jobs, outbox, participants
from promptpipe.cli.remote import Server, answer
from promptpipe.cli.tables import show_list, show_one
from promptpipe.model.messages import Resolution

queues = typer.Typer(help="Queues of jobs.", no_args_is_help=True)

TIME_FORMATS = ["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S"]

Id = Annotated[str, typer.Argument(metavar="ID")]
Said = Annotated[str | None, typer.Option(help="What flows are told of them.", show_default=False)]
Queue = Annotated[str, typer.Argument(metavar="QUEUE")]


@participants.command("enroll")
def enroll_participant(
    number: Annotated[str, typer.Argument(metavar="NUMBER", help="An international number with its +.")],
    name: Said = None,
    gender: Said = None,
    ethnicity: Said = None,
    background: Said = None,
    timezone: Annotated[str | None, typer.Option(help="An IANA zone.", show_default=False)] = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Enroll a person, and let the flow greet them."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.EnrollParticipantRequest(
        phone_number=number, name=name, gender=gender, ethnicity=ethnicity, background=background, timezone=timezone
    )
    enrolled = answer(v1.ParticipantServiceStub, "enroll_participant", request, server)
    show_one(enrolled.participant, as_json=as_json)


@participants.command("delete")
def delete_participant(
    participant_id: Id,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    server: Server = None,
) -> None:
    """Erase a person with everything they said. There is no way back."""
    from promptpipe.client import v1  # noqa: PLC0415

    if not yes:
        typer.confirm(f"Erase participant {participant_id} for good?", abort=True)
    request = v1.DeleteParticipantRequest(participant_id=participant_id)
    answer(v1.ParticipantServiceStub, "delete_participant", request, server)


@jobs.command("cancel")
def cancel_job(job_id: Id, server: Server = None, as_json: Json = False) -> None:
    """End a queued job; ask the worker of a running one to stop."""
    from promptpipe.client import v1  # noqa: PLC0415

    show_one(answer(v1.JobServiceStub, "cancel_job", v1.CancelJobRequest(job_id=job_id), server).job, as_json=as_json)


@jobs.command("retry")
def retry_job(job_id: Id, server: Server = None, as_json: Json = False) -> None:
    """Run a queued, failed or canceled job now."""
    from promptpipe.client import v1  # noqa: PLC0415

    show_one(answer(v1.JobServiceStub, "retry_job", v1.RetryJobRequest(job_id=job_id), server).job, as_json=as_json)


@jobs.command("reschedule")
def reschedule_job(
    job_id: Id,
    run_at: Annotated[datetime, typer.Argument(formats=TIME_FORMATS, help="UTC, or with +HHMM.", metavar="TIME")],
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Give a queued job another time."""
    from promptpipe.client import v1  # noqa: PLC0415

    at = run_at if run_at.tzinfo else run_at.replace(tzinfo=UTC)
    request = v1.RescheduleJobRequest(job_id=job_id, run_at=at)
    show_one(answer(v1.JobServiceStub, "reschedule_job", request, server).job, as_json=as_json)


@jobs.command("stats")
@queues.command("list")
def list_queues(
    queue: Annotated[str | None, typer.Option(help="Only this queue.")] = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Count jobs, queue by queue."""
    from promptpipe.client import v1  # noqa: PLC0415

    found = answer(v1.JobServiceStub, "get_job_stats", v1.GetJobStatsRequest(queue=queue), server)
    columns = ("name", "paused", "concurrency", "scheduled", "ready", "running", "failed", "lag")
    show_list(found.queues, columns, as_json=as_json)


@queues.command("pause")
def pause_queue(queue: Queue, server: Server = None, as_json: Json = False) -> None:
    """Start no more jobs of a queue, on any instance."""
    from promptpipe.client import v1  # noqa: PLC0415

    answer(v1.JobServiceStub, "pause_queue", v1.PauseQueueRequest(queue=queue), server)
    list_queues(queue, server, as_json)


@queues.command("resume")
def resume_queue(queue: Queue, server: Server = None, as_json: Json = False) -> None:
    """Start a paused queue's jobs again."""
    from promptpipe.client import v1  # noqa: PLC0415

    answer(v1.JobServiceStub, "resume_queue", v1.ResumeQueueRequest(queue=queue), server)
    list_queues(queue, server, as_json)


@queues.command("limit")
def limit_queue(
    queue: Queue,
    concurrency: Annotated[int | None, typer.Argument(min=1, help="Without it: no limit.")] = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Run at most so many of a queue's jobs at the same time, on all instances together."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.LimitQueueRequest(queue=queue, concurrency=concurrency)
    answer(v1.JobServiceStub, "limit_queue", request, server)
    list_queues(queue, server, as_json)


@outbox.command("retry")
def retry_message(message_id: Id, server: Server = None, as_json: Json = False) -> None:
    """Send a failed, expired or canceled message again."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.RetryMessageRequest(message_id=message_id)
    show_one(answer(v1.OutboxServiceStub, "retry_message", request, server).message, as_json=as_json)


@outbox.command("cancel")
def cancel_message(message_id: Id, server: Server = None, as_json: Json = False) -> None:
    """Take back a queued message."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.CancelMessageRequest(message_id=message_id)
    show_one(answer(v1.OutboxServiceStub, "cancel_message", request, server).message, as_json=as_json)


@outbox.command("resolve")
def resolve_message(message_id: Id, resolution: Resolution, server: Server = None, as_json: Json = False) -> None:
    """Decide what becomes of a message in doubt."""
    from promptpipe.client import v1  # noqa: PLC0415

    decision = v1.ResolveInDoubtRequestResolution[resolution.name]
    request = v1.ResolveInDoubtRequest(message_id=message_id, resolution=decision)
    show_one(answer(v1.OutboxServiceStub, "resolve_in_doubt", request, server).message, as_json=as_json)
