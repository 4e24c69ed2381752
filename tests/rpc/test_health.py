"""Health checks say what `/readyz` says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
import trio
import trio.testing
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from promptpipe.rpc.health import Health
from promptpipe.services.readiness import Readiness
from tests.support.eventually import eventually
from tests.support.rpc import Client, failure, open_client, open_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
NAME = "promptpipe.v1.JobService"


@pytest.fixture
def readiness() -> Readiness:
    return Readiness()


@pytest.fixture
async def client(readiness: Readiness) -> AsyncIterator[Client]:
    async with open_server(Health(readiness, [NAME])) as (_, port), open_client(port) as client:
        yield client


async def check(client: Client, service: str = "") -> int:
    answer = await client.unary(CHECK, HealthCheckRequest(service=service), HealthCheckResponse)
    return int(answer.status)


@pytest.mark.parametrize("service", ["", NAME])
async def test_service_serves_while_it_is_ready(client: Client, readiness: Readiness, service: str) -> None:
    """Not before it is, not while the database is gone, not once it drains."""
    assert await check(client, service) == NOT_SERVING
    readiness._change(None)
    assert await check(client, service) == SERVING
    readiness.store_failed()
    assert await check(client, service) == NOT_SERVING
    readiness._change(None)
    assert await check(client, service) == SERVING
    readiness.drain()
    assert await check(client, service) == NOT_SERVING


async def test_unknown_service_is_not_found(client: Client) -> None:
    error = await failure(check(client, "nobody.Knows"))
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_watcher_is_told_now_and_at_each_change(client: Client, readiness: Readiness) -> None:
    """Each status once, as the protocol wants it."""
    call = client.begin_download(WATCH, HealthCheckRequest(service=NAME), HealthCheckResponse)

    async def told() -> int:
        return int((await trio.to_thread.run_sync(next, call)).status)

    assert await told() == NOT_SERVING
    readiness._change(None)
    assert await told() == SERVING
    readiness.store_failed()
    assert await told() == NOT_SERVING
    readiness._change("the database is still not available")
    await trio.testing.wait_all_tasks_blocked(0.01)
    readiness._change(None)
    assert await told() == SERVING
    readiness.drain()
    assert await told() == NOT_SERVING
    call.cancel()


async def test_watcher_of_an_unknown_service_is_told_so_and_kept(client: Client) -> None:
    """It may become known (`health.proto`)."""
    call = client.begin_download(WATCH, HealthCheckRequest(service="nobody.Knows"), HealthCheckResponse)
    first = await trio.to_thread.run_sync(next, call)
    assert first.status == HealthCheckResponse.SERVICE_UNKNOWN
    assert call.is_active()
    call.cancel()


async def test_watcher_that_goes_is_forgotten(readiness: Readiness) -> None:
    async with open_server(Health(readiness, [])) as (server, port):
        async with open_client(port) as client:
            call = client.begin_download(WATCH, HealthCheckRequest(), HealthCheckResponse)
            await trio.to_thread.run_sync(next, call)
            assert len(server._calls) == 1
        await eventually(lambda: not server._calls)
