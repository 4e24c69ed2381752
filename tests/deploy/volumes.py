"""What stands in for named volumes: folders that outlive the processes, and the database that lives in them."""

from __future__ import annotations

import shutil
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.postgres import Server


class Volume(Protocol):
    """The volume of a database, with whatever container the database needs."""

    @property
    def url(self) -> str:
        """Where the database is, the same after every `up`."""
        ...

    def up(self) -> None:
        """Make the volume if there is none, and start the database on it."""
        ...

    def down(self, end: signal.Signals) -> None:
        """Stop the database, in its own way at SIGTERM; the volume stays."""
        ...

    def destroy(self) -> None:
        """Remove the volume, as only `down -v` does."""
        ...


@dataclass(frozen=True)
class SqliteVolume:
    """A folder with a database file; the service's process is the database's."""

    folder: Path

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder}/promptpipe.db"

    def up(self) -> None:
        self.folder.mkdir(exist_ok=True)

    def down(self, end: signal.Signals) -> None:
        pass

    def destroy(self) -> None:
        shutil.rmtree(self.folder)


@dataclass(frozen=True)
class PostgresVolume:
    """The data folder of a PostgreSQL server."""

    server: Server

    @property
    def url(self) -> str:
        return self.server.url

    def up(self) -> None:
        if not self.server.folder.exists():
            self.server.create()
        self.server.start()

    def down(self, end: signal.Signals) -> None:
        if end is signal.SIGKILL:
            self.server.kill()
        else:
            self.server.stop(signal.SIGINT)  # the image's STOPSIGNAL

    def destroy(self) -> None:
        shutil.rmtree(self.server.folder)
