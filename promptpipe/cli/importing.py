"""The command that brings over what the first PromptPipe has in its database."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, TypeVar

import trio
import typer
from rich.table import Table

from promptpipe.cli.admin import Json
from promptpipe.cli.service import DatabaseUrl
from promptpipe.cli.start import EXIT_FAILED, EXIT_USAGE, fail, start
from promptpipe.cli.tables import console
from promptpipe.model.errors import PromptPipeError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from promptpipe.model.importing import TableProgress

T = TypeVar("T")

importing = typer.Typer()

COUNTS = ("read", "imported", "skipped", "problems")


@importing.command("import")
def import_(
    source: Annotated[
        str | None,
        typer.Option("--from", help="The old database: sqlite:///PATH, a path, or postgresql://...", metavar="URL"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing; tell what would be.")] = False,
    give_up: Annotated[bool, typer.Option("--give-up", help="Forget an interrupted import; what came stays.")] = False,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Import from the first PromptPipe; exit 1 when something could not be imported."""
    settings = start(database_url=database_url)
    if (source is None) != give_up or (give_up and dry_run):
        fail("either --from, or --give-up alone", EXIT_USAGE)
    from promptpipe.app import importing as app  # noqa: PLC0415  commands that do not import start faster

    if source is None:
        _run(partial(app.give_up, settings))
        return
    tables = _run(partial(app.import_from, settings, source, dry_run=dry_run))
    _show(tables, dry_run=dry_run, as_json=as_json)
    sys.exit(EXIT_FAILED if any(table.problems for table in tables) else 0)


def _run(function: Callable[[], Awaitable[T]]) -> T:
    try:
        return trio.run(function)
    except PromptPipeError as error:
        fail(error, EXIT_USAGE if isinstance(error, SettingsError) else EXIT_FAILED)


def _show(tables: Sequence[TableProgress], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        described = [
            {
                "table": table.table,
                **{count: getattr(table, count) for count in COUNTS},
                "reasons": [asdict(problem) for problem in table.listed],
            }
            for table in tables
        ]
        json.dump({"dry_run": dry_run, "tables": described}, sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
        return
    counts = Table("TABLE", *(count.upper() for count in COUNTS), box=None, pad_edge=False)
    reasons = Table("TABLE", "ROW", "NOT IMPORTED BECAUSE", box=None, pad_edge=False)
    for table in tables:
        counts.add_row(table.table, *(str(getattr(table, count)) for count in COUNTS))
        for problem in table.listed:
            reasons.add_row(table.table, problem.row, problem.reason)
        if table.problems > len(table.listed):
            reasons.add_row(table.table, "", f"and {table.problems - len(table.listed)} more, which the log names")
    console().print(counts)
    if reasons.rows:
        console().print()
        console().print(reasons)
