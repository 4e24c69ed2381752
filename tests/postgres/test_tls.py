"""Encrypted connections. The server in the wheel is built without TLS, so a proxy of ours speaks it for the server."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import trio
import trustme
from psycopg import errors

from promptpipe.storage.postgres.driver import Connection, make_conninfo
from tests.postgres.observer import assert_sound
from tests.postgres.proxy import open_proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def tls_url(url: str, tmp_path: Path) -> AsyncIterator[str]:
    """Give a server with a certificate, for clients that check it."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    root = tmp_path / "root.pem"
    authority.cert_pem.write_to_path(str(root))
    async with open_proxy(url, context) as proxy:
        yield make_conninfo(
            proxy.url, host="localhost", hostaddr="127.0.0.1", sslmode="verify-full", sslrootcert=str(root)
        )


async def test_verified(tls_url: str) -> None:
    """A server with the right certificate is talked to, and its queries are canceled, encrypted."""
    async with await Connection.connect(tls_url, autocommit=True) as connection:
        assert connection.pgconn.ssl_in_use
        large = "z" * 5_000_000
        assert await (await connection.execute("SELECT %s::text", [large])).fetchone() == (large,)
        with trio.move_on_after(0.05) as scope:
            await connection.execute("SELECT pg_sleep(10)")
        assert scope.cancelled_caught
        await assert_sound(connection)


async def test_wrong_authority(tls_url: str, tmp_path: Path) -> None:
    """A certificate of an authority that is not trusted is refused."""
    root = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(root))
    with pytest.raises(errors.OperationalError, match="certificate verify failed"):
        await Connection.connect(tls_url, sslrootcert=str(root))


async def test_wrong_name(tls_url: str) -> None:
    """So is one for another host."""
    with pytest.raises(errors.OperationalError, match="does not match host name"):
        await Connection.connect(tls_url, host="database.example")


async def test_unencrypted(tls_url: str, url: str) -> None:
    """A server that cannot encrypt is refused by a client that insists."""
    with pytest.raises(errors.OperationalError, match="does not support SSL"):
        await Connection.connect(url, sslmode="require")
