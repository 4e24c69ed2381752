"""TLS: who proves who it is gets in; who does not keeps nobody else out."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import grpc
import pytest
import trio
import trustme
from google.protobuf.wrappers_pb2 import StringValue

from promptpipe.rpc.server import ServerLimits, tls_context
from tests.support.eventually import eventually
from tests.support.rpc import Methods, failure, open_client, open_server

if TYPE_CHECKING:
    from pathlib import Path


class Papers:
    """An authority, a server's certificate and a client's, as files."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.ca = str(folder / "ca.pem")
        authority.cert_pem.write_to_path(self.ca)
        for name in ("localhost", "client"):
            certificate = authority.issue_cert(name)
            certificate.private_key_pem.write_to_path(str(folder / f"{name}.key"))
            certificate.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
        self.server = str(folder / "localhost.pem"), str(folder / "localhost.key")
        self.client = str(folder / "client.pem"), str(folder / "client.key")


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("foreign"))


def read(file: str) -> bytes:
    with open(file, "rb") as opened:  # noqa: PTH123
        return opened.read()


def credentials(trusted: Papers, own: Papers | None = None) -> grpc.ChannelCredentials:
    """Return grpcio's credentials: which authority it trusts, and whose certificate it shows."""
    if own is None:
        return grpc.ssl_channel_credentials(read(trusted.ca))
    certificate, key = own.client
    return grpc.ssl_channel_credentials(read(trusted.ca), read(key), read(certificate))


async def is_answered(port: int, shown: grpc.ChannelCredentials) -> bool:
    async with open_client(port, credentials=shown) as client:
        return bool((await client.unary("echo", StringValue(value="x"))).value == "x")


async def is_refused(port: int, shown: grpc.ChannelCredentials | None) -> bool:
    async with open_client(port, credentials=shown) as client:
        return (await failure(client.unary("echo"))).code() is grpc.StatusCode.UNAVAILABLE


async def test_client_that_trusts_the_authority_is_answered(papers: Papers) -> None:
    async with open_server(Methods(), tls=tls_context(*papers.server)) as (_, port):
        assert await is_answered(port, credentials(papers))


async def test_large_answers_pass_through_tls(papers: Papers) -> None:
    async with (
        open_server(Methods(), tls=tls_context(*papers.server)) as (_, port),
        open_client(port, credentials=credentials(papers)) as client,
    ):
        answers = await client.chat("chat", (StringValue(value="x" * 50_000) for _ in range(50)))
    assert [len(answer.value) for answer in answers] == [50_000] * 50


async def test_client_that_does_not_trust_the_authority_hangs_up(papers: Papers, foreign: Papers) -> None:
    async with open_server(Methods(), tls=tls_context(*papers.server)) as (_, port):
        assert await is_refused(port, credentials(foreign))
        assert await is_answered(port, credentials(papers))


async def test_client_has_to_show_a_certificate_when_it_is_asked(papers: Papers, foreign: Papers) -> None:
    """None is refused, and so is one of another authority."""
    async with open_server(Methods(), tls=tls_context(*papers.server, papers.ca)) as (_, port):
        assert await is_refused(port, credentials(papers))
        assert await is_refused(port, credentials(papers, foreign))
        assert await is_answered(port, credentials(papers, papers))


async def test_plain_bytes_at_a_tls_port_harm_nobody(papers: Papers) -> None:
    async with open_server(Methods(), tls=tls_context(*papers.server)) as (_, port):
        assert await is_refused(port, None)
        for words in (b"GET / HTTP/1.1\r\n\r\n", b"", bytes(1000), b"\x16\x03\x01"):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(words)
        assert await is_answered(port, credentials(papers))


async def test_handshake_that_never_ends_holds_up_nobody(papers: Papers) -> None:
    """And it is ended after a while. Until then it counts as a connection."""
    limits = ServerLimits(handshake=0.3)
    async with open_server(Methods(), tls=tls_context(*papers.server), limits=limits) as (server, port):
        streams = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(10)]
        await eventually(lambda: server._handshakes == 10)
        assert await is_answered(port, credentials(papers))
        with trio.fail_after(5.0):
            for stream in streams:
                assert not await stream.receive_some()
                await stream.aclose()
        await eventually(lambda: server._handshakes == 0)


@pytest.mark.parametrize("protocols", [[], ["http/1.1"]])
async def test_peer_has_to_ask_for_http2(papers: Papers, protocols: list[str]) -> None:
    """By ALPN, as "gRPC over HTTP2" demands of TLS."""
    context = ssl.create_default_context(cafile=papers.ca)
    if protocols:
        context.set_alpn_protocols(protocols)
    async with open_server(Methods(), tls=tls_context(*papers.server)) as (_, port):
        tcp = await trio.open_tcp_stream("127.0.0.1", port)
        stream = trio.SSLStream(tcp, context, server_hostname="localhost", https_compatible=True)
        with trio.fail_after(5.0):
            try:
                await stream.do_handshake()
                assert not await stream.receive_some()
            except trio.BrokenResourceError:
                pass
        await trio.aclose_forcefully(tcp)
        assert await is_answered(port, credentials(papers))


def test_old_tls_is_not_spoken(papers: Papers) -> None:
    assert tls_context(*papers.server).minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_unusable_file_is_said(papers: Papers, missing: int) -> None:
    files = [*papers.server, papers.ca]
    files[missing] = "/nowhere"
    with pytest.raises(OSError, match="No such file"):
        tls_context(*files)
