"""`grpc.health.v1` for probes and load balancers: it says what `/readyz` says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.health.v1.health_grpc import HealthBase
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from promptpipe.rpc.stream import RpcStream
    from promptpipe.services.readiness import Readiness

    Call = RpcStream[HealthCheckRequest, HealthCheckResponse]

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN


class Health(HealthBase):
    """The whole server ("") and each of *services* serve when the service is ready."""

    def __init__(self, readiness: Readiness, services: Iterable[str]) -> None:
        self._readiness = readiness
        self._services = {"", *services}

    async def Check(self, stream: Call) -> None:  # type: ignore[override]  # noqa: N802  names of the protocol
        """Answer whether a service serves now."""
        request = await stream.recv_message()
        if request is None or request.service not in self._services:
            raise GRPCError(Status.NOT_FOUND, "there is no such service")
        await stream.send_message(HealthCheckResponse(status=SERVING if self._readiness.ready else NOT_SERVING))

    async def Watch(self, stream: Call) -> None:  # type: ignore[override]  # noqa: N802
        """Answer whether a service serves, now and whenever that changes."""
        request = await stream.recv_message()
        known = request is not None and request.service in self._services
        said = None
        while True:
            changed = self._readiness.changed
            serving = SERVING if self._readiness.ready else NOT_SERVING
            status = serving if known else SERVICE_UNKNOWN
            if status != said:
                await stream.send_message(HealthCheckResponse(status=status))
                said = status
            await changed.wait()
