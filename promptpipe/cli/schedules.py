"""Commands about schedules. The client is imported as in `cli.admin`."""

from __future__ import annotations

from typing import Annotated

import typer

from promptpipe.cli.prompts import (
    Conversation,
    Generate,
    Generator,
    Options,
    Parameters,
    System,
    Text,
    Who,
    prompt_of,
)
from promptpipe.cli.remote import Server, answer, ask, every
from promptpipe.cli.tables import show_list, show_one
from promptpipe.model.schedules import Misfire

schedules = typer.Typer(help="Prompts that are sent again and again.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Id = Annotated[str, typer.Argument(metavar="ID")]
Field = Annotated[int | None, typer.Option(help="Only then; any, without it.", show_default=False)]


@schedules.command("list")
def list_schedules(
    participant: Annotated[str | None, typer.Option(help="Only those of this participant.", metavar="ID")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Print at most so many, the newest first.")] = 50,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """List schedules."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.ListSchedulesRequest(participant_id=participant)
    items = ask(
        lambda channel: every(v1.PromptServiceStub(channel).list_schedules, request, "schedules", limit), server
    )
    columns = ("id", "participant_id", "cron", "fields", "timezone", "paused", "next_at", "last_at")
    show_list(items, columns, as_json=as_json)


@schedules.command("get")
def get_schedule(schedule_id: Id, server: Server = None, as_json: Json = False) -> None:
    """Show one schedule."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.GetScheduleRequest(schedule_id=schedule_id)
    show_one(answer(v1.PromptServiceStub, "get_schedule", request, server).schedule, as_json=as_json)


@schedules.command("create")
def create_schedule(
    who: Who,
    text: Text = "",
    generate: Generate = False,
    system: System = "",
    options: Options = None,
    conversation: Conversation = False,
    generator: Generator = None,
    parameters: Parameters = "{}",
    cron: Annotated[str | None, typer.Option(help="A line as in crontab(5), instead of fields.")] = None,
    minute: Field = None,
    hour: Field = None,
    day: Field = None,
    month: Field = None,
    weekday: Annotated[int | None, typer.Option(help="Only then, Sunday being 0.", show_default=False)] = None,
    timezone: Annotated[str | None, typer.Option(help="An IANA zone; theirs by default, else UTC.")] = None,
    misfire: Annotated[Misfire, typer.Option(help="What becomes of missed times.")] = Misfire.RUN,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Prompt somebody again and again."""
    from promptpipe.client import v1  # noqa: PLC0415

    fields = v1.ScheduleFields(minute=minute, hour=hour, day=day, month=month, weekday=weekday)
    request = v1.SchedulePromptRequest(
        **{"to" if who.startswith("+") else "participant_id": who},
        prompt=prompt_of(
            text,
            generate=generate,
            system=system,
            options=options,
            conversation=conversation,
            generator=generator,
            parameters=parameters,
        ),
        cron=cron,
        fields=None if fields == v1.ScheduleFields() else fields,  # every minute is asked for by a line
        timezone=timezone,
        misfire=v1.ScheduleMisfire[misfire.name],
    )
    show_one(answer(v1.PromptServiceStub, "schedule_prompt", request, server).schedule, as_json=as_json)


@schedules.command("pause")
def pause_schedule(schedule_id: Id, server: Server = None, as_json: Json = False) -> None:
    """Let a schedule's times pass without effect."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.PauseScheduleRequest(schedule_id=schedule_id)
    show_one(answer(v1.PromptServiceStub, "pause_schedule", request, server).schedule, as_json=as_json)


@schedules.command("resume")
def resume_schedule(schedule_id: Id, server: Server = None, as_json: Json = False) -> None:
    """Let a paused schedule go on with its next time."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.ResumeScheduleRequest(schedule_id=schedule_id)
    show_one(answer(v1.PromptServiceStub, "resume_schedule", request, server).schedule, as_json=as_json)


@schedules.command("delete")
def delete_schedule(schedule_id: Id, server: Server = None, as_json: Json = False) -> None:
    """End a schedule."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.DeleteScheduleRequest(schedule_id=schedule_id)
    deleted = answer(v1.PromptServiceStub, "delete_schedule", request, server)
    if as_json:
        show_one(deleted, as_json=True)
