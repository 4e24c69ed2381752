"""One call, from its headers to its trailers."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import structlog
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.metadata import Deadline, decode_metadata
from h2.errors import ErrorCodes

from promptpipe.rpc.errors import Failure, failure_of, sole_error
from promptpipe.rpc.http2 import ConnectionLostError, StreamResetError
from promptpipe.rpc.stream import RpcStream, refuse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grpclib.const import Handler
    from multidict import MultiDict

    from promptpipe.rpc.auth import Authenticate
    from promptpipe.rpc.framing import Message
    from promptpipe.rpc.http2 import Http2Stream

MAX_MESSAGE = 256 * 1024
"""Bytes of a request. Ours have at most a payload of 64 KiB, and reading a message keeps the event loop busy."""
PATIENCE_SECONDS = 30.0
"""How long a unary request may take to arrive once its call has begun."""

LOSSES = (StreamResetError, ConnectionLostError)

_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}

log = structlog.get_logger(__name__)


class Call:
    """One call while it runs."""

    def __init__(self, stream: Http2Stream, methods: Mapping[str, Handler], authenticate: Authenticate) -> None:
        self._stream = stream
        self._methods = methods
        self._authenticate = authenticate
        self._scope = trio.CancelScope()
        self._obstacle: str | None = None
        self.streaming = False
        """Whether it may go on for as long as the client likes."""
        stream.on_failure = self._scope.cancel

    def stop(self, reason: str) -> None:
        """Cancel the handler, and end the call as UNAVAILABLE for *reason*."""
        self._obstacle = reason
        self._scope.cancel()

    async def run(self) -> None:
        """Answer the call. It ends silently when the client gives up."""
        stream = self._stream
        try:
            if stream.failure is None:
                await self._answer(dict(stream.headers or ()))
        finally:
            stream.on_failure = None
            # Of a client that has its answer nothing more is read; one that has none is told that there will be none.
            stream.release(ErrorCodes.NO_ERROR if stream.output_ended else ErrorCodes.INTERNAL_ERROR)

    async def _answer(self, headers: dict[str, str]) -> None:
        if headers.get(":method") != "POST":
            refuse(self._stream, 405)
            return
        base, _, encoding = headers.get("content-type", "").partition("+")
        if base.strip() != "application/grpc" or encoding not in {"", "proto"}:
            refuse(self._stream, 415, Status.UNKNOWN, "the content type must be application/grpc")
            return
        path = headers.get(":path", "")
        started = time.monotonic()
        try:
            method, rpc = self._admit(path, headers.get("grpc-timeout"))
        except GRPCError as error:
            log.info("call refused", method=path[:200], status=error.status.name)
            refuse(self._stream, 200, error.status, error.message or "")
            return
        failure = await self._handle(method, rpc, path)
        if self._stream.failure is not None:
            return  # nobody is left to be told
        if failure is None:
            rpc.finish()
        else:
            log.info("call failed", method=path, status=failure.status.name, seconds=time.monotonic() - started)
            rpc.finish(failure.status, failure.text, failure.details)

    def _admit(self, path: str, timeout: str | None) -> tuple[Handler, RpcStream[Message, Message]]:
        """Return what is called, and the call for its handler; raise `GRPCError` when it cannot be made."""
        metadata = _metadata(self._stream.headers or ())
        self._authenticate(metadata)
        if self._obstacle is not None:
            raise GRPCError(Status.UNAVAILABLE, self._obstacle)
        method = self._methods.get(path)
        if method is None:
            raise GRPCError(Status.UNIMPLEMENTED, "there is no such method")
        self.streaming = method.cardinality.client_streaming or method.cardinality.server_streaming
        return method, RpcStream(
            self._stream,
            method,
            metadata=metadata,
            deadline=_deadline(timeout),
            max_message=MAX_MESSAGE,
            patience=PATIENCE_SECONDS,
        )

    async def _handle(self, method: Handler, rpc: RpcStream[Message, Message], path: str) -> Failure | None:
        """Run the handler; return how it failed, or None."""
        if rpc.deadline is not None:
            self._scope.deadline = trio.current_time() + rpc.deadline.time_remaining()
        try:
            with self._scope:
                await method.func(rpc)
                return None
        except Exception as raised:
            error = sole_error(raised)
            if _is_loss(error):
                return None
            failure = failure_of(error)
            if failure.ours:
                log.exception("call failed by a fault of ours", method=path)
            return failure
        if self._obstacle is not None:
            return Failure(Status.UNAVAILABLE, self._obstacle)
        return Failure(Status.DEADLINE_EXCEEDED, "the deadline has passed")


def _is_loss(error: Exception) -> bool:
    """Return whether *error* only says that the client is gone, be it in several tasks of the handler at once."""
    if isinstance(error, ExceptionGroup):
        return error.split(LOSSES)[1] is None
    return isinstance(error, LOSSES)


def _deadline(timeout: str | None) -> Deadline | None:
    if timeout is None:
        return None
    match = _TIMEOUT.fullmatch(timeout)
    if match is None:
        raise GRPCError(Status.INVALID_ARGUMENT, "grpc-timeout is not a time-out")
    return Deadline.from_timeout(int(match[1]) * _UNITS[match[2]])


def _metadata(headers: object) -> MultiDict[str | bytes]:
    try:
        return decode_metadata(headers)  # type: ignore[arg-type]
    except ValueError:
        raise GRPCError(Status.INVALID_ARGUMENT, "binary metadata is not base64") from None
