"""Kinds of jobs: what does the work of a job, and how it is to be treated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from promptpipe.model.errors import PayloadError
from promptpipe.model.retry import JOB_BACKOFF

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from promptpipe.model.jobs import Effects, Job
    from promptpipe.model.retry import Backoff

P = TypeVar("P")

TIME_LIMIT_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKind(Generic[P]):
    """What is done for jobs called *name*.

    *run* is given the job and its payload as *payload*: a dataclass, a TypedDict, or whatever else pydantic can make of
    JSON. What it returns is applied in the commit that ends the job, once. What it does outside is at-least-once: it
    may be canceled at any await, run again after a crash, and run beside another that has lost its lease unnoticed.

    It may raise `RetryJobError`, `SnoozeJobError`, `FailJobError` or `CancelJobError` to say what is to become of the
    job. Any other exception is retried with *backoff*, and so is a run that takes longer than *time_limit* seconds. It
    runs in a task that does the work of other jobs afterwards: context variables it sets it must reset.
    """

    name: str
    run: Callable[[Job, P], Awaitable[Effects | None]]
    payload: type[P] = field(default=Mapping)  # type: ignore[assignment]
    backoff: Backoff = JOB_BACKOFF
    time_limit: float = TIME_LIMIT_SECONDS
    _adapter: TypeAdapter[P] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        anything: Any = Mapping
        object.__setattr__(self, "_adapter", None if self.payload is anything else TypeAdapter(self.payload))

    def decoded(self, payload: Mapping[str, object]) -> P:
        """Return *payload* as its type; raise `PayloadError`, which says what does not fit, without the values."""
        if self._adapter is None:
            return payload  # type: ignore[return-value]
        try:
            return self._adapter.validate_python(payload)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            reasons = "; ".join(
                f"{'.'.join(map(str, item['loc'])) or 'payload'}: {item['msg']}" for item in problems[:5]
            )
            raise PayloadError(reasons) from None
