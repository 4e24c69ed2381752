"""Commands that run the service, the simulator, or both."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import structlog
import trio
import typer
from pydantic import BaseModel, SecretStr
from rich.console import Console

from promptpipe import __version__
from promptpipe.cli.admin import Json
from promptpipe.cli.start import EXIT_FAILED, EXIT_USAGE, fail, start
from promptpipe.config import PREFIX, Settings
from promptpipe.model.errors import PromptPipeError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from promptpipe.model.recovery import RecoveryReport

service = typer.Typer()
simulator = typer.Typer(
    help="A stand-in for Meta, on loopback, for development and tests.", invoke_without_command=True
)

DatabaseUrl = Annotated[str | None, typer.Option(help=f"Overrides {PREFIX}DATABASE_URL.", metavar="URL")]
HttpBind = Annotated[str | None, typer.Option(help=f"Overrides {PREFIX}HTTP_BIND.", metavar="HOST:PORT")]
SimulatorBind = Annotated[str | None, typer.Option(help=f"Overrides {PREFIX}SIMULATOR_BIND.", metavar="HOST:PORT")]
WithProcess = Annotated[int | None, typer.Option(help="End when this process has ended.", metavar="PID", hidden=True)]

log = structlog.get_logger(__name__)


@service.command()
def serve(
    database_url: DatabaseUrl = None,
    http_bind: HttpBind = None,
    with_process: WithProcess = None,
) -> None:
    """Run the service until SIGTERM or SIGINT."""
    settings = start(database_url=database_url, http_bind=http_bind)
    from promptpipe import app  # noqa: PLC0415  commands that do not serve start faster without it

    _run(partial(app.serve, settings, with_process=with_process))


@service.command()
def migrate(
    database_url: DatabaseUrl = None,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 when something is missing.")] = False,
) -> None:
    """Bring the database's schema up to date."""
    settings = start(database_url=database_url)
    from promptpipe import app  # noqa: PLC0415

    if not check:
        _run(partial(app.migrate, settings))
        return
    missing: list[str] = []

    async def look() -> None:
        missing.extend(await app.missing_migrations(settings))

    _run(look)
    for name in missing:
        typer.echo(f"missing: {name}")
    sys.exit(EXIT_FAILED if missing else 0)


@service.command()
def check(
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Look for what recovery would repair, and change nothing; exit 1 when there is something."""
    settings = start(database_url=database_url)
    from promptpipe import app  # noqa: PLC0415

    reports: list[RecoveryReport] = []

    async def look() -> None:
        reports.append(await app.check(settings))

    _run(look)
    [report] = reports
    if as_json:
        typer.echo(json.dumps([asdict(component) for component in report.components], ensure_ascii=False, indent=2))
    else:
        for line in _findings(report):
            typer.echo(line)
    sys.exit(0 if report.is_clean else EXIT_FAILED)


@service.command()
def config() -> None:
    """Print the settings in effect, secrets masked."""
    settings = start()
    for name, value in _flat(settings):
        typer.echo(f"{PREFIX}{name}={value}")


@service.command()
def dev(with_process: WithProcess = None) -> None:
    """Run service and simulator together, people enrolled when they first write."""
    settings = start()
    from promptpipe.dev import run_both  # noqa: PLC0415

    tell = partial(typer.secho, fg=typer.colors.GREEN, bold=True, err=True)
    sys.exit(trio.run(run_both, settings, tell, with_process))


@service.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


@simulator.callback()
def simulate(
    context: typer.Context,
    bind: SimulatorBind = None,
    http_bind: HttpBind = None,
    webhook_url: Annotated[str | None, typer.Option(help="Where to send webhooks; the service's by default.")] = None,
    with_process: WithProcess = None,
) -> None:
    """Run a stand-in for Meta."""
    if context.invoked_subcommand is not None:
        return
    settings = start(simulator_bind=bind, http_bind=http_bind)
    from promptpipe.simulator.server import serve_simulator  # noqa: PLC0415

    _run(partial(serve_simulator, settings, webhook_url, with_process=with_process))


@simulator.command()
def chat(
    phone: Annotated[str, typer.Option(help="Your number.")] = "+16505551234",
    name: Annotated[str | None, typer.Option(help="Your name, as the service sees it.")] = None,
    bind: SimulatorBind = None,
) -> None:
    """Be a person with a phone, in the terminal."""
    settings = start(simulator_bind=bind)
    from promptpipe.simulator import chat as phone_app  # noqa: PLC0415

    url = f"http://{settings.simulator_bind}"
    sys.exit(trio.run(phone_app.chat, url, phone, name, Console(highlight=False)))


def _findings(report: RecoveryReport) -> Iterator[str]:
    """Say what is to be repaired, what cannot be, and how much more there is of each."""
    for component in report.components:
        for subject, said in (*component.repairs, *component.failures):
            yield f"{component.name}: {subject}: {said}"
        unnamed = component.restored + component.failed - len(component.repairs) - len(component.failures)
        if unnamed and component.name != "leases":
            yield f"{component.name}: and {unnamed} more"
    if report.is_clean:
        yield "nothing to repair"


def _run(function: Callable[[], Awaitable[None]]) -> None:
    """Run *function* and exit with the reason when it fails."""
    try:
        trio.run(function)
    except PromptPipeError as error:
        fail(error, EXIT_USAGE if isinstance(error, SettingsError) else EXIT_FAILED)
    except BaseException as error:  # noqa: ASYNC103  the last thing that happens
        log.critical("the service failed", exc_info=error)
        sys.exit(EXIT_FAILED)


def _flat(settings: Settings) -> list[tuple[str, object]]:
    """Return every setting by the name it has in the environment, secrets masked."""
    values = settings.model_copy(
        update={"whatsapp": settings.whatsapp_in_use(), "database_url": settings.database_shown}
    )
    flat: list[tuple[str, object]] = []
    for name in Settings.model_fields:
        value = getattr(values, name)
        if isinstance(value, BaseModel):
            flat += [(f"{name}__{inner}".upper(), _shown(getattr(value, inner))) for inner in type(value).model_fields]
        else:
            flat.append((name.upper(), _shown(value)))
    return flat


def _shown(value: object) -> object:
    if isinstance(value, SecretStr):
        return "********"
    return getattr(value, "value", value)
