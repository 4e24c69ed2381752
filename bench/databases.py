"""Databases for measurements: a file, and a server with PostgreSQL's own default settings, both durable."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

from tests.support.postgres import Programs, as_url, new_database, open_server, server_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEFAULTS = {"shared_buffers": "128MB"}
"""What the tests' servers have otherwise."""


class Databases:
    """Makes empty databases."""

    def __init__(self, folder: Path, server_url: str) -> None:
        self._folder = folder
        self.server_url = server_url

    def new(self, kind: str) -> str:
        """Return the URL of an empty database, as the setting takes it."""
        if kind == "sqlite":
            return f"sqlite:///{self._folder / uuid4().hex}.db"
        return as_url(new_database(self.server_url))


@contextmanager
def open_databases(folder: Path, server_url: str | None = None) -> Iterator[Databases]:
    """Give what makes databases, on a server of its own unless one is named."""
    with ExitStack() as stack:
        if server_url is None:
            place = stack.enter_context(server_folder())
            server = open_server(Programs.installed(place), place / "bench", settings=DEFAULTS)
            server_url = stack.enter_context(server).url
        yield Databases(folder, server_url)
