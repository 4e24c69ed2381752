"""Commands about recovery. The client is imported as in `cli.admin`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from promptpipe.cli.admin import Json, Limit
from promptpipe.cli.remote import CALL_SECONDS, Server, ask, every
from promptpipe.cli.tables import show_list, show_one

if TYPE_CHECKING:
    from promptpipe.client import v1

recovery = typer.Typer(help="What recovery found and repaired.", no_args_is_help=True)


@recovery.command("run")
def run_recovery(server: Server = None, as_json: Json = False) -> None:
    """Run recovery now, and show what it came to."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.RunRecoveryRequest()
    answer = ask(lambda channel: v1.RecoveryServiceStub(channel).run_recovery(request, timeout=CALL_SECONDS), server)
    _show(answer.report, as_json=as_json)


@recovery.command("last")
def last_report(server: Server = None, as_json: Json = False) -> None:
    """Show the newest report."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.GetLastReportRequest()
    answer = ask(lambda channel: v1.RecoveryServiceStub(channel).get_last_report(request, timeout=CALL_SECONDS), server)
    _show(answer.report, as_json=as_json)


@recovery.command("list")
def list_reports(limit: Limit = 50, server: Server = None, as_json: Json = False) -> None:
    """List reports."""
    from promptpipe.client import v1  # noqa: PLC0415

    request = v1.ListReportsRequest()
    items = ask(lambda channel: every(v1.RecoveryServiceStub(channel).list_reports, request, "reports", limit), server)
    show_list(items, ("started_at", "finished_at", "components"), as_json=as_json)


def _show(report: v1.RecoveryReport | None, *, as_json: bool) -> None:
    """Print a report: for people, component by component."""
    if as_json or report is None:
        show_one(report, as_json=as_json)
    else:
        show_list(
            report.components,
            ("name", "checked", "restored", "failed", "duration", "repairs", "failures"),
            as_json=False,
        )
