"""What an error is to a gRPC client: one table from our codes to canonical ones, with details."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, ResourceInfo, RetryInfo
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from promptpipe.model.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
    PromptPipeError,
    StillWaitingError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

DOMAIN = "promptpipe"
RETRY_AFTER_SECONDS = 1

STATUSES: Mapping[type[Exception], Status] = {
    InvalidArgumentError: Status.INVALID_ARGUMENT,
    NotFoundError: Status.NOT_FOUND,
    AlreadyExistsError: Status.ALREADY_EXISTS,
    PreconditionError: Status.FAILED_PRECONDITION,
    StillWaitingError: Status.DEADLINE_EXCEEDED,
    StoreUnavailableError: Status.UNAVAILABLE,
}
"""All others are INTERNAL, with a log entry and no text."""


@dataclass(frozen=True, slots=True)
class Failure:
    """How a call ends that has failed. *ours* says that the fault is in this service, and is to be logged."""

    status: Status
    text: str
    details: tuple[Any, ...] = ()
    ours: bool = False


def sole_error(error: Exception) -> Exception:
    """Return *error*, or the only one in it when it is a group: nurseries wrap what is raised in them."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def failure_of(error: Exception) -> Failure:
    """Return how a call ends whose handler raised *error*."""
    if isinstance(error, GRPCError):
        return Failure(error.status, error.message or error.status.name, tuple(error.details or ()))
    status = STATUSES.get(type(error))
    if status is None or not isinstance(error, PromptPipeError):
        return Failure(Status.INTERNAL, "internal error", ours=True)
    info = ErrorInfo(reason=error.code.upper(), domain=DOMAIN)
    return Failure(status, _text(error), (info, *_details(error)))


def _text(error: PromptPipeError) -> str:
    # What a database says of itself is for the log.
    return "the database is not available" if isinstance(error, StoreUnavailableError) else str(error)


def _details(error: PromptPipeError) -> tuple[Any, ...]:
    match error:
        case InvalidArgumentError(field=field, rule=rule):
            violation = BadRequest.FieldViolation(field=field, description=rule)
            return (BadRequest(field_violations=[violation]),)
        case NotFoundError(resource=resource, name=name) | AlreadyExistsError(resource=resource, name=name):
            return (ResourceInfo(resource_type=resource, resource_name=name, description=str(error)),)
        case StoreUnavailableError():
            return (RetryInfo(retry_delay=Duration(seconds=RETRY_AFTER_SECONDS)),)
    return ()
