"""The command line."""

from __future__ import annotations

import typer

from promptpipe.cli import admin, events, flows, importing, orders, prompts, recoveries, schedules, service

cli = typer.Typer(
    help="Long conversations over WhatsApp that survive anything.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
cli.add_typer(service.service)
cli.add_typer(importing.importing)
cli.add_typer(service.simulator, name="simulator")
cli.add_typer(admin.participants, name="participants")
cli.add_typer(admin.jobs, name="jobs")
cli.add_typer(orders.queues, name="queues")
cli.add_typer(admin.outbox, name="outbox")
cli.add_typer(events.events, name="events")
cli.add_typer(recoveries.recovery, name="recovery")
cli.add_typer(flows.flows, name="flows")
cli.add_typer(prompts.prompts, name="prompts")
cli.add_typer(schedules.schedules, name="schedules")


def main() -> None:
    """Run the command line and exit."""
    cli(prog_name="promptpipe")
