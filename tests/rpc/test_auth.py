"""Who may call: whoever knows the token, and nobody else learns anything."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpclib.exceptions import GRPCError
from grpclib.health.v1.health_pb2 import HealthCheckRequest
from grpclib.reflection.v1.reflection_pb2 import ServerReflectionRequest
from structlog.testing import capture_logs

from promptpipe.rpc.auth import bearer_token
from promptpipe.rpc.health import Health
from promptpipe.rpc.reflection import with_reflection
from promptpipe.services.readiness import Readiness
from tests.support.http2 import open_peer
from tests.support.rpc import Client, Methods, failure, open_client, open_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TOKEN = "swordfish-0123456789"
UNAUTHENTICATED = "16"


@pytest.fixture
def methods() -> Methods:
    return Methods()


@pytest.fixture
async def port(methods: Methods) -> AsyncIterator[int]:
    services = [methods, *with_reflection([Health(Readiness(), [])])]
    async with open_server(*services, authenticate=bearer_token(TOKEN)) as (_, port):
        yield port


@pytest.fixture
async def client(port: int) -> AsyncIterator[Client]:
    async with open_client(port) as client:
        yield client


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_right_token_is_let_in(client: Client, scheme: str) -> None:
    """The scheme's case does not matter (RFC 9110, section 11.1)."""
    metadata = [("authorization", f"{scheme} {TOKEN}")]
    assert (await client.unary("echo", StringValue(value="x"), metadata=metadata)).value == "x"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Bearer  {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer{TOKEN}",
        f"Bearer {TOKEN},Bearer {TOKEN}",
    ],
)
async def test_anything_else_is_not(client: Client, methods: Methods, value: str) -> None:
    error = await failure(client.unary("echo", metadata=[("authorization", value)]))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert methods.begun == []


async def test_call_without_a_token_is_not_let_in(client: Client, methods: Methods) -> None:
    assert (await failure(client.unary("echo"))).code() is grpc.StatusCode.UNAUTHENTICATED
    assert methods.begun == []


async def test_binary_header_is_no_token(client: Client) -> None:
    error = await failure(client.unary("echo", metadata=[("authorization-bin", f"Bearer {TOKEN}".encode())]))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("value", ["Bearer é", "Bearer \udcff", "Bearer 漢字"])
async def test_token_of_other_letters_is_refused_like_any_other(port: int, value: str) -> None:
    """The comparison takes ASCII text or bytes; it must not crash for the rest."""
    async with open_peer(port) as peer:
        await peer.greet()
        raw = value.encode("utf-8", "surrogateescape")
        usual = [(":method", "POST"), (":path", "/test.Service/echo"), (":scheme", "http")]
        await peer.send(peer.head(1, [*usual, ("content-type", "application/grpc"), ("authorization", raw)]))
        assert (await peer.answer(1))["grpc-status"] == UNAUTHENTICATED


async def test_health_and_reflection_need_the_token_too(client: Client) -> None:
    """What serves here, and whether it does, is nobody else's business."""
    check = HealthCheckRequest()
    assert (await failure(client.unary("/grpc.health.v1.Health/Check", check))).code() is (
        grpc.StatusCode.UNAUTHENTICATED
    )
    ask = [ServerReflectionRequest(list_services="")]
    for version in ("v1", "v1alpha"):
        name = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        assert (await failure(client.chat(name, ask))).code() is grpc.StatusCode.UNAUTHENTICATED


async def test_stranger_does_not_learn_which_methods_there_are(client: Client) -> None:
    assert (await failure(client.unary("missing"))).code() is grpc.StatusCode.UNAUTHENTICATED


async def test_tokens_are_in_no_log(client: Client) -> None:
    """Neither ours nor what somebody tried."""
    with capture_logs() as logs:
        await client.unary("echo", metadata=[("authorization", f"Bearer {TOKEN}")])
        await failure(client.unary("crash", metadata=[("authorization", f"Bearer {TOKEN}")]))
        await failure(client.unary("echo", metadata=[("authorization", "Bearer guessed")]))
    assert len(logs) >= 2
    assert TOKEN not in repr(logs)
    assert "guessed" not in repr(logs)


def test_comparison_takes_the_same_time_for_every_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is `hmac.compare_digest`'s, and it is asked whatever the guess looks like."""
    asked = []
    compare = hmac.compare_digest

    def note(given: bytes, expected: bytes) -> bool:
        asked.append((given, expected))
        return compare(given, expected)

    monkeypatch.setattr(hmac, "compare_digest", note)
    check = bearer_token(TOKEN)
    check({"authorization": f"Bearer {TOKEN}"})
    with pytest.raises(GRPCError):
        check({"authorization": "Bearer é"})
    assert asked == [(TOKEN.encode(), TOKEN.encode()), ("é".encode(), TOKEN.encode())]
