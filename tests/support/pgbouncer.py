"""pgbouncer in transaction mode before a server: Debian's package, as a plain child process."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support.service import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres import Server

START_SECONDS = 10.0


@contextmanager
def open_pgbouncer(server: Server, *, pool_size: int = 3) -> Iterator[str]:
    """Give the URL of *server*'s database as clients of a pgbouncer see it, which has *pool_size* sessions for all."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        raise AssertionError("no pgbouncer to test with: install Debian's package pgbouncer")
    port = free_port()
    folder = server.folder / "pgbouncer"
    folder.mkdir()
    (folder / "users").write_text('"postgres" ""\n')
    (folder / "pgbouncer.ini").write_text(
        "[databases]\n"
        f"postgres = host=127.0.0.1 port={server.port} dbname=postgres\n"
        "[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = trust\nauth_file = {folder}/users\n"
        f"pool_mode = transaction\ndefault_pool_size = {pool_size}\nmax_client_conn = 200\n"
    )
    # It refuses to run as root.
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    command = ["setpriv", "--pdeathsig", "KILL", program, "--quiet", str(folder / "pgbouncer.ini")]
    process = subprocess.Popen(
        command,
        user=None if user is None else user.pw_uid,
        group=None if user is None else user.pw_gid,
        extra_groups=None if user is None else [],
        cwd="/",
        stdin=subprocess.DEVNULL,
    )
    try:
        _wait_open(port)
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        process.kill()
        process.wait()


def _wait_open(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "pgbouncer did not start"
            time.sleep(0.02)  # noqa: TID251  nothing else runs meanwhile
        else:
            return
