"""The product as a user runs it: a process of its own, and Meta's stand-in beside the test."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import httpx2
import psycopg
import trio

from promptpipe.channels.whatsapp import signature
from promptpipe.config import SIMULATOR_APP_SECRET
from promptpipe.net import listen
from promptpipe.simulator.app import make_simulator_app
from promptpipe.simulator.server import open_stand_in
from promptpipe.web.server import HttpServer
from tests.support.eventually import eventually
from tests.support.sql import as_psycopg

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from typing import Self

    from promptpipe.simulator.meta_stand_in import MetaStandIn

SERVE = (sys.executable, "-m", "promptpipe", "serve")


def free_port() -> int:
    """Return a port on loopback that nobody uses, and nobody else is given soon.

    It lies below those that the kernel gives to connections, and is one of this process's own: tests in two of them do
    not meet, and a server that is started again finds its port free.
    """
    for port in _ports:
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("there is no end of ports")


def _own_ports() -> Iterator[int]:
    first = 20_000 + 4_000 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 3)
    return itertools.cycle(range(first, first + 4_000))


_ports = _own_ports()


@dataclass(frozen=True)
class Home:
    """A folder of its own, and a database: in that folder, or on a server."""

    folder: Path
    database_url: str

    @classmethod
    def on_sqlite(cls, folder: Path) -> Self:
        """Give a home whose database is a file in its folder."""
        return cls(folder, f"sqlite:///{folder / 'promptpipe.db'}")

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Return what a query (values as `?`) finds in the database."""
        path = self.database_url.removeprefix("sqlite:///")
        if path != self.database_url:
            with closing(sqlite3.connect(path)) as file:
                return file.execute(sql, parameters).fetchall()
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(as_psycopg(sql), parameters).fetchall()

    def change(self, sql: str, *parameters: object) -> None:
        """Change the database behind the service's back."""
        path = self.database_url.removeprefix("sqlite:///")
        if path != self.database_url:
            with closing(sqlite3.connect(path)) as file, file:
                file.execute(sql, parameters)
            return
        with psycopg.connect(self.database_url) as connection:
            connection.execute(as_psycopg(sql), parameters)


class Process(Protocol):
    """What a test does with a process: as `subprocess.Popen` has it."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def send_signal(self, sig: int, /) -> None: ...
    def kill(self) -> None: ...
    def wait(self) -> int: ...


@dataclass
class Service:
    """A service process, to be started, killed and started again on the same database."""

    home: Home
    simulator_port: int
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    grpc_port: int = field(default_factory=free_port)
    process: Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def folder(self) -> Path:
        return self.home.folder

    def environment(self, **more: str) -> dict[str, str]:
        """Return an environment that holds these settings and no others."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PROMPTPIPE_")}
        ours = {
            "DATABASE_URL": self.home.database_url,
            "HTTP_BIND": f"127.0.0.1:{self.port}",
            "GRPC_BIND": f"127.0.0.1:{self.grpc_port}",
            "SIMULATOR_BIND": f"127.0.0.1:{self.simulator_port}",
            "AUTO_ENROLL": "true",
            **self.settings,
            **more,
        }
        return clean | {f"PROMPTPIPE_{name}": value for name, value in ours.items()}

    def start(self, command: Sequence[str] = SERVE, **more: str) -> None:
        """Start the process; its log goes to `service.log`."""
        with (self.folder / "service.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self.environment(**more), cwd=self.folder, stdin=subprocess.DEVNULL, stderr=log
            )

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        assert self.process is not None
        return self.process.poll()

    async def wait_ended(self, within: float = 20.0) -> int:
        """Wait for the process to end and return its exit code."""
        await eventually(lambda: self.returncode is not None, within=within)
        assert self.returncode is not None
        return self.returncode

    async def wait_ready(self) -> None:
        """Wait until the service takes webhooks."""
        async with httpx2.AsyncClient() as client:

            async def ready() -> bool:
                assert self.returncode is None, self.log()
                try:
                    return (await client.get(f"{self.url}/readyz")).status_code == 200
                except httpx2.TransportError:
                    return False

            await eventually(ready)

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    async def stop(self) -> int:
        """End the process in an orderly way and return its exit code."""
        self.signal(signal.SIGTERM)
        return await self.wait_ended()

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Return what a query finds in the service's database."""
        return self.home.rows(sql, *parameters)

    def log(self) -> str:
        """Return what the processes have logged."""
        return (self.folder / "service.log").read_text()

    def clean_up(self) -> None:
        """Leave no process behind."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    async def post(self, body: bytes, *, client: httpx2.AsyncClient, secret: str = SIMULATOR_APP_SECRET) -> int:
        """Post a signed webhook and return the HTTP status."""
        headers = {signature.HEADER: signature.sign(secret, body), "Content-Type": "application/json"}
        answer = await client.post(f"{self.url}/webhooks/whatsapp", content=body, headers=headers)
        return answer.status_code


@asynccontextmanager
async def open_service(home: Home, **settings: str) -> AsyncIterator[tuple[Service, MetaStandIn]]:
    """Give a service that is not started yet, and Meta's stand-in, which is."""
    service = Service(home, free_port(), settings)
    async with serving(open_stand_in(f"{service.url}/webhooks/whatsapp"), service.simulator_port) as stand_in:
        try:
            yield service, stand_in
        finally:
            service.clean_up()


@asynccontextmanager
async def serving(opening: AbstractAsyncContextManager[MetaStandIn], port: int) -> AsyncIterator[MetaStandIn]:
    """Give a stand-in for Meta that takes requests on *port*."""
    with closing(listen("127.0.0.1", port, "simulator")) as listener:
        async with opening as stand_in, trio.open_nursery() as nursery:
            server = HttpServer("simulator", make_simulator_app(stand_in), listener, grace=0.0)
            await nursery.start(server.run)
            yield stand_in
            nursery.cancel_scope.cancel()
