"""Reflection: whoever asks learns every service, method and message, down to the last type."""

from __future__ import annotations

import json
from pathlib import Path
from sys import executable
from typing import TYPE_CHECKING, Any

import pytest
import trio
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpclib.reflection.v1.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from promptpipe.rpc.health import Health
from promptpipe.rpc.pb.promptpipe import v1
from promptpipe.rpc.reflection import service_name, with_reflection
from promptpipe.services.readiness import Readiness
from tests.support.rpc import Client, open_client, open_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BASES = [value for name, value in vars(v1).items() if name.endswith("ServiceBase")]
VERSIONS = ["v1", "v1alpha"]


@pytest.fixture
async def port() -> AsyncIterator[int]:
    services = [*(base() for base in BASES), Health(Readiness(), [])]
    async with open_server(*with_reflection(services)) as (_, port):
        yield port


@pytest.fixture
async def client(port: int) -> AsyncIterator[Client]:
    async with open_client(port) as client:
        yield client


async def ask(client: Client, version: str = "v1", **question: Any) -> Any:
    """Return the answer to one question. The two versions differ in nothing but their name."""
    name = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    [answer] = await client.chat(name, [ServerReflectionRequest(**question)], ServerReflectionResponse)
    return answer


@pytest.mark.parametrize("version", VERSIONS)
async def test_all_services_are_listed(client: Client, version: str) -> None:
    answer = await ask(client, version, list_services="")
    names = {service.name for service in answer.list_services_response.service}
    assert names >= {service_name(base()) for base in BASES} | {"grpc.health.v1.Health"}
    assert len(BASES) >= 7


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "symbol",
    [
        "promptpipe.v1.JobService",
        "promptpipe.v1.JobService.GetJob",
        "promptpipe.v1.Job",
        "promptpipe.v1.Job.payload",
        "promptpipe.v1.Job.Status",
        "google.protobuf.Struct",
        "google.protobuf.Timestamp",
        "google.protobuf.Duration",
        "grpc.health.v1.Health.Check",
    ],
)
async def test_symbol_is_found_in_its_file(client: Client, version: str, symbol: str) -> None:
    answer = await ask(client, version, file_containing_symbol=symbol)
    files = [FileDescriptorProto.FromString(raw) for raw in answer.file_descriptor_response.file_descriptor_proto]
    assert any(symbol.startswith(file.package + ".") for file in files), answer.error_response


@pytest.mark.parametrize("question", ["file_containing_symbol", "file_by_filename", "all_extension_numbers_of_type"])
async def test_what_is_unknown_is_not_found(client: Client, question: str) -> None:
    """The answer says so, and the stream goes on."""
    answer = await ask(client, **{question: "nobody.Knows"})
    assert answer.error_response.error_code == 5


async def test_message_without_extensions_has_none(client: Client) -> None:
    answer = await ask(client, all_extension_numbers_of_type="promptpipe.v1.Job")
    assert list(answer.all_extension_numbers_response.extension_number) == []


RESOLVE = """
import json, sys
import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

def visit(message):
    if message.full_name not in seen:
        seen.add(message.full_name)
        for field in message.fields:
            if field.message_type is not None:
                visit(field.message_type)

seen, methods = set(), []
with grpc.insecure_channel(sys.argv[1]) as channel:
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    for name in database.get_services():
        for method in pool.FindServiceByName(name).methods:
            methods.append(f"/{name}/{method.name}")
            visit(method.input_type)
            visit(method.output_type)
    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
print(json.dumps({"messages": sorted(seen), "methods": methods, "health": health.status}))
"""


@pytest.mark.slow
async def test_everything_of_ours_can_be_resolved(port: int) -> None:
    """The gRPC project's own clients, knowing nothing, can build every message, `google.protobuf`'s included.

    They run apart: their protos of the same names would not go with ours in one process.
    """
    found = json.loads(await run(executable, "-c", RESOLVE, f"127.0.0.1:{port}"))
    assert {path for base in BASES for path in base().__mapping__()} <= set(found["methods"])
    types = {kind for base in BASES for method in base().__mapping__().values() for kind in method[2:]}
    assert {f"promptpipe.v1.{kind.__name__}" for kind in types} <= set(found["messages"])
    assert {"google.protobuf.Timestamp", "google.protobuf.Struct"} <= set(found["messages"])
    assert found["health"] == 2


@pytest.mark.slow
async def test_grpcurl_knows_us(port: int) -> None:
    """It describes everything, and makes calls with nothing but the server's word."""
    grpcurl = str(Path(executable).with_name("grpcurl"))
    target = f"127.0.0.1:{port}"
    listed = (await run(grpcurl, "-plaintext", target, "list")).split()
    assert set(listed) >= {service_name(base()) for base in BASES}
    described = await run(grpcurl, "-plaintext", target, "describe")
    assert all(name in described for name in listed)
    answer = json.loads(await run(grpcurl, "-plaintext", target, "grpc.health.v1.Health/Check"))
    assert answer == {"status": "NOT_SERVING"}


async def run(*words: str) -> str:
    """Return what a program prints."""
    done = await trio.run_process(words, capture_stdout=True, stderr=None)
    return bytes(done.stdout).decode()
