"""What the service answered, for people and for programs."""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import betterproto2

PIPE_WIDTH = 10_000
"""Columns where the output goes into a program: nothing is cut."""


def show_list(items: Sequence[betterproto2.Message], columns: Sequence[str], *, as_json: bool) -> None:
    """Print *items* as a table of *columns*, or as a JSON array of all that they hold."""
    if as_json:
        _print_json([_plain(item) for item in items])
        return
    table = Table(
        *(column.removesuffix("_at").replace("_", " ").upper() for column in columns), box=None, pad_edge=False
    )
    for item in items:
        table.add_row(*(_shown(getattr(item, column)) for column in columns))
    console().print(table)


def show_one(item: betterproto2.Message | None, *, as_json: bool) -> None:
    """Print all that *item* holds, which a service never leaves out of an answer."""
    assert item is not None  # noqa: S101
    if as_json:
        _print_json(_plain(item))
        return
    table = Table("", "", box=None, pad_edge=False, show_header=False)
    for name, value in _fields(item).items():
        table.add_row(name.replace("_", " "), _shown(value))
    console().print(table)


def _fields(item: betterproto2.Message) -> Mapping[str, Any]:
    return {field.name: getattr(item, field.name) for field in fields(item)}  # type: ignore[arg-type]


def _plain(item: betterproto2.Message) -> dict[str, Any]:
    return item.to_dict(include_default_values=True)


def _print_json(value: object) -> None:
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def console() -> Console:
    """Return what prints tables."""
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def _shown(value: Any) -> str:
    match value:
        case None | False:
            shown = ""
        case True:
            shown = "yes"
        case Enum():
            shown = value.name
        case datetime():
            shown = f"{value:%Y-%m-%d %H:%M:%S}Z"
        case timedelta():
            shown = f"{value.total_seconds():.1f} s"
        case list():
            shown = ", ".join(_shown(item) for item in value)
        case str() | int():
            shown = str(value)
        case _:
            shown = json.dumps(value.to_dict(), ensure_ascii=False)
    return shown
