"""How every command starts and fails."""

from __future__ import annotations

import sys
from typing import NoReturn

import structlog
import typer

from promptpipe.config import LogFormat, Settings, load_settings, unknown_settings
from promptpipe.logs import set_up_logging
from promptpipe.model.errors import SettingsError

EXIT_FAILED = 1
EXIT_USAGE = 2
"""Of the command line, or of the settings."""

log = structlog.get_logger(__name__)


def start(**flags: str | None) -> Settings:
    """Load the settings and set up logging; exit with the reason when a setting is bad."""
    try:
        settings = load_settings(**flags)
    except SettingsError as error:
        fail(error, EXIT_USAGE)
    set_up_logging(as_json=settings.log_format is LogFormat.JSON)
    for name, nearest in unknown_settings():
        log.warning("unknown setting", name=name, **({"did_you_mean": nearest} if nearest else {}))
    return settings


def fail(error: Exception | str, code: int) -> NoReturn:
    """Say why, and exit."""
    typer.secho(f"promptpipe: {error}", fg=typer.colors.RED, err=True)
    sys.exit(code)
