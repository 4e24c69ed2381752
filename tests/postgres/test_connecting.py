"""Finding a server: refusals, silence, several hosts, names and addresses, and no threads but for names."""

from __future__ import annotations

import socket
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
import trio
import trio.testing
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

from promptpipe.storage.postgres.driver import Connection, make_conninfo
from tests.postgres.observer import Observer, assert_sound
from tests.postgres.proxy import open_proxy
from tests.support.postgres import Server, open_server
from tests.support.service import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres import Programs


class HostNames(trio.abc.HostnameResolver):
    """Knows the names of the test."""

    def __init__(self, **names: list[str]) -> None:
        self._names = names

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # type: ignore[no-untyped-def]  # noqa: A002, ANN001, ANN201  as the interface has it
        await trio.lowlevel.checkpoint()
        if host.decode() not in self._names:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, type, proto, "", (name, int(port))) for name in self._names[host.decode()]]

    async def getnameinfo(self, sockaddr, flags):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201  as the interface has it
        raise NotImplementedError


@contextmanager
def silent_port() -> Iterator[int]:
    """Give a port on loopback where somebody listens and never answers."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


async def test_refused() -> None:
    """Nobody there is an `OperationalError` at once."""
    with pytest.raises(errors.OperationalError, match="refused"):
        await Connection.connect(f"host=127.0.0.1 port={free_port()} user=x")


async def test_silent() -> None:
    """Nobody answering is a `ConnectionTimeout` after `connect_timeout`."""
    with silent_port() as port, pytest.raises(errors.ConnectionTimeout):
        await Connection.connect(host="127.0.0.1", port=port, user="x", connect_timeout=2)


async def test_canceled() -> None:
    """An attempt is given up as soon as it is canceled."""
    with silent_port() as port:
        began = trio.current_time()
        with trio.move_on_after(0.05) as scope:
            await Connection.connect(host="127.0.0.1", port=port, user="x")
        assert scope.cancelled_caught
        assert trio.current_time() - began < 1.0


async def test_canceled_is_closed() -> None:
    """A canceled attempt hangs up at once, also while somebody holds on to its exception."""
    held = []
    with closing(trio.socket.socket()) as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        with trio.move_on_after(0.05):
            try:
                await Connection.connect(host="127.0.0.1", port=listener.getsockname()[1], user="x")
            except trio.Cancelled as canceled:
                held.append(canceled)
                raise
        server, _ = await listener.accept()
        with closing(server), trio.fail_after(1.0):
            while await server.recv(1000):
                pass
    assert held


async def test_canceled_anywhere(url: str, observer: Observer) -> None:
    """Wherever an attempt is canceled, no connection is left in the server."""
    caught = 0
    for step in range(80):
        with trio.move_on_after(step * 0.0001) as scope:
            async with await Connection.connect(url):
                pass
        caught += scope.cancelled_caught
    assert caught
    await observer.wait_backends(0)


async def test_unknown_parameter() -> None:
    """What libpq does not know is a `ProgrammingError`."""
    with pytest.raises(errors.ProgrammingError):
        await Connection.connect("flavour=vanilla")


async def test_wrong_password(local_url: str) -> None:
    """A wrong password is an `OperationalError`; the reason is in its text."""
    with Observer.open(local_url) as observer:
        observer.rows("DROP ROLE IF EXISTS with_password")
        observer.rows("CREATE ROLE with_password LOGIN PASSWORD 'right'")
    async with await Connection.connect(
        local_url, user="with_password", password="right", autocommit=True
    ) as connection:
        await assert_sound(connection)
    with pytest.raises(errors.OperationalError, match="password authentication failed"):
        await Connection.connect(local_url, user="with_password", password="wrong")


async def test_unknown_database(url: str) -> None:
    """So is a database that is not there."""
    with pytest.raises(errors.OperationalError, match="does not exist"):
        await Connection.connect(url, dbname="nowhere")


async def test_next_host(local_url: str) -> None:
    """Hosts are tried in order, each with its own time limit."""
    port = conninfo_to_dict(local_url)["port"]
    with silent_port() as silent:
        ports = f"{free_port()},{silent},{port}"
        several = make_conninfo(local_url, host="127.0.0.1,127.0.0.1,127.0.0.1", port=ports, connect_timeout=2)
        async with await Connection.connect(several, autocommit=True) as connection:
            await assert_sound(connection)


async def test_no_host_at_all() -> None:
    """When all fail, the error is of the last one's type, tells of each, and has them as its cause."""
    with silent_port() as silent, pytest.raises(errors.OperationalError) as caught:
        await Connection.connect(
            host="127.0.0.1,127.0.0.1", port=f"{silent},{free_port()}", user="x", connect_timeout=2
        )
    cause = caught.value.__cause__
    assert isinstance(cause, ExceptionGroup)
    assert [type(error) for error in cause.exceptions] == [errors.ConnectionTimeout, errors.OperationalError]
    assert "timeout" in str(caught.value)
    assert "refused" in str(caught.value)


async def test_names(local_url: str) -> None:
    """A name is looked up by Trio, and each of its addresses is tried; unknown names are skipped if one is known."""
    port = conninfo_to_dict(local_url)["port"]
    trio.socket.set_custom_hostname_resolver(HostNames(database=["127.0.0.9", "127.0.0.1"]))
    several = make_conninfo(local_url, host="nowhere,database", port=f"{port},{port}")
    async with await Connection.connect(several, autocommit=True) as connection:
        assert connection.info.hostaddr == "127.0.0.1"
        await assert_sound(connection)
    with pytest.raises(errors.OperationalError, match="nowhere"):
        await Connection.connect(local_url, host="nowhere")


@pytest.mark.skipif(psycopg.pq.version() < 160000, reason="libpq knows it since 16")
async def test_load_balancing(local_url: str) -> None:
    """With `load_balance_hosts=random`, hosts are tried in any order."""
    port = conninfo_to_dict(local_url)["port"]
    trio.socket.set_custom_hostname_resolver(HostNames(one=["127.0.0.1"], two=["127.0.0.1"]))
    several = make_conninfo(local_url, host="one,two", port=f"{port},{port}", load_balance_hosts="random")
    hosts = set()
    for _ in range(30):
        async with await Connection.connect(several) as connection:
            hosts.add(connection.info.host)
    assert hosts == {"one", "two"}


@pytest.mark.skipif(
    not psycopg.capabilities.has_cancel_safe(), reason="with a libpq older than 17, requests are sent from a thread"
)
async def test_no_threads(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connecting to an address, working and canceling start no thread, if libpq can cancel without."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a thread was asked for")

    monkeypatch.setattr(trio.to_thread, "run_sync", refuse)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    async with await Connection.connect(url, autocommit=True) as connection:
        with trio.move_on_after(0.02):
            await connection.execute("SELECT pg_sleep(10)")
        await assert_sound(connection)


async def test_a_cancel_request_that_cannot_be_sent(local_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """A server that cannot be asked to cancel has its connection closed, soon."""
    async with open_proxy(local_url) as proxy:
        connection = await Connection.connect(proxy.url, autocommit=True)
        began = trio.current_time()
        connection.cleanup_seconds = 0.3
        with trio.move_on_after(0.05) as scope:
            proxy.silent = True
            await connection.execute("SELECT pg_sleep(10)")
        assert scope.cancelled_caught
        assert trio.current_time() - began < 3.0
        assert connection.closed
        assert connection.broken
    assert "did not end" in caplog.text


async def test_closing_wakes_who_waits(connection: Connection, observer: Observer) -> None:
    """A task that waits for a connection learns that another one has closed it, also while it sends."""
    for query, parameters in [("SELECT pg_sleep(10)", []), ("SELECT length(%s)", ["x" * 100_000_000])]:
        async with (
            await Connection.connect(connection.info.dsn, autocommit=True) as other,
            trio.open_nursery() as nursery,
        ):

            async def wait(other: Connection = other, query: str = query, parameters: list[str] = parameters) -> None:
                with pytest.raises(errors.OperationalError):
                    await other.execute(query, parameters)

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await other.close()


@pytest.mark.slow
async def test_finding_the_primary(postgres_programs: Programs, postgres_folder: Path) -> None:
    """With `target_session_attrs`, the right one of a primary and its standby is found, also after a promotion."""
    with open_server(postgres_programs, postgres_folder / "primary", durable=False) as primary:
        standby = Server(postgres_programs, postgres_folder / "standby", durable=False)
        standby.create_standby_of(primary)
        standby.start()
        try:
            both = make_conninfo(
                primary.url, host="127.0.0.1,127.0.0.1", port=f"{standby.port},{primary.port}", connect_timeout=10
            )

            async def port_of(wanted: str, where: str = both) -> int:
                async with await Connection.connect(where, target_session_attrs=wanted) as connection:
                    return connection.info.port

            assert await port_of("any") == standby.port
            assert await port_of("read-write") == primary.port
            assert await port_of("primary") == primary.port
            assert await port_of("standby") == standby.port
            primary_first = make_conninfo(both, port=f"{primary.port},{standby.port}")
            assert await port_of("prefer-standby", primary_first) == standby.port
            primary.kill()
            with pytest.raises(errors.OperationalError):
                await port_of("read-write")
            assert await port_of("prefer-standby") == standby.port
            with Observer.open(standby.url) as observer:
                observer.rows("SELECT pg_promote()")
            assert await port_of("read-write") == standby.port
            assert await port_of("prefer-standby") == standby.port
            primary.start()
        finally:
            standby.stop()
