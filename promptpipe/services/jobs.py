"""Jobs as operators and other services see them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from promptpipe.model.errors import InvalidArgumentError, PayloadError
from promptpipe.model.ids import JobId
from promptpipe.model.jobs import DEFAULT_PRIORITY, DEFAULT_QUEUE, PRIORITIES, NewJob, OnConflict
from promptpipe.model.retry import DEFAULT_MAX_ATTEMPTS
from promptpipe.model.text import storable_json
from promptpipe.ports.jobs import JobKind
from promptpipe.services import checks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from promptpipe.model.ids import ParticipantId
    from promptpipe.model.jobs import Job, QueueStats
    from promptpipe.model.listing import JobFilter, Page, PageRequest
    from promptpipe.ports.clock import Clock
    from promptpipe.ports.queues import QueueStore
    from promptpipe.ports.store import JobStore, ParticipantStore

MAX_ATTEMPTS = range(1, 1001)
CONCURRENCY = range(1, 2**31)
MAX_DEDUPE_PERIOD = timedelta(days=30)
MAX_PAYLOAD = 64 * 1024
"""Bytes of JSON."""


async def _do_nothing(job: Job, payload: Mapping[str, object]) -> None:
    del job, payload


NOOP = JobKind(name="noop", run=_do_nothing)
"""Does nothing: a job of this kind shows that jobs run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """A job that somebody asks for; what is None has its default."""

    kind: str
    queue: str | None = None
    run_at: datetime | None = None
    payload: Mapping[str, object] = field(default_factory=dict)
    dedupe_key: str | None = None
    dedupe_period: timedelta | None = None
    on_conflict: OnConflict = OnConflict.KEEP
    max_attempts: int | None = None
    priority: int | None = None
    participant_id: ParticipantId | None = None


class Jobs:
    """Jobs of *kinds*, and participants' timers of *timer_kinds*, in *queues*."""

    def __init__(
        self,
        store: JobStore,
        participants: ParticipantStore,
        *,
        kinds: Mapping[str, JobKind[Any]],
        timer_kinds: Collection[str],
        queues: Collection[str],
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        self._store = store
        self._participants = participants
        self._kinds = kinds
        self._timer_kinds = timer_kinds
        self._queues = queues
        self._clock = clock
        self._new_id = new_id

    async def enqueue(self, request: JobRequest) -> tuple[Job, bool]:
        """Add a job; return it, or the live one with its dedupe key, and whether it was created.

        Raise `InvalidArgumentError`, among others for a kind or queue that nobody here serves, and `NotFoundError`
        for a timer of somebody who does not exist.
        """
        kind = checks.one_of("kind", request.kind, {*self._kinds, *self._timer_kinds})
        if kind in self._timer_kinds:
            if request.participant_id is None:
                raise InvalidArgumentError("participant_id", f"is needed: {kind} is a participant's timer")
            await self._participants.get(request.participant_id)
        elif request.participant_id is not None:
            raise InvalidArgumentError("participant_id", f"must be absent: {kind} is no participant's timer")
        new = NewJob(
            id=JobId(self._new_id()),
            kind=kind,
            run_at=request.run_at or self._clock.now(),
            payload=self._checked_payload(kind, request.payload),
            queue=checks.one_of("queue", request.queue or DEFAULT_QUEUE, self._queues),
            priority=checks.number("priority", _or(request.priority, DEFAULT_PRIORITY), PRIORITIES),
            dedupe_key=checks.key("dedupe_key", request.dedupe_key),
            dedupe_period=_checked_period(request),
            on_conflict=request.on_conflict,
            max_attempts=checks.number("max_attempts", _or(request.max_attempts, DEFAULT_MAX_ATTEMPTS), MAX_ATTEMPTS),
            participant_id=request.participant_id,
        )
        return await self._store.enqueue(new)

    def _checked_payload(self, kind: str, payload: Mapping[str, object]) -> Mapping[str, object]:
        _check_storable(payload)
        if kind in self._kinds:
            try:
                self._kinds[kind].decoded(payload)
            except PayloadError as error:
                raise InvalidArgumentError("payload", str(error)) from None
        return payload

    async def get(self, job_id: JobId) -> Job:
        """Return a job, live or ended; raise `NotFoundError`."""
        return await self._store.get(job_id)

    async def list(self, wanted: JobFilter, page: PageRequest) -> Page[Job]:
        """Return jobs, live and ended, the newest first."""
        return await self._store.list(wanted, page)

    async def cancel(self, job_id: JobId) -> Job:
        """See `JobStore.cancel`."""
        return await self._store.cancel(job_id)

    async def retry(self, job_id: JobId) -> Job:
        """See `JobStore.retry`."""
        return await self._store.retry(job_id)

    async def reschedule(self, job_id: JobId, run_at: datetime | None) -> Job:
        """See `JobStore.reschedule`."""
        if run_at is None:
            raise InvalidArgumentError("run_at", "must be given")
        return await self._store.reschedule(job_id, run_at)


class Queues:
    """Queues of jobs, whether or not anybody has used them so far."""

    def __init__(self, store: QueueStore) -> None:
        self._store = store

    async def pause(self, queue: str) -> None:
        """See `QueueStore.pause`."""
        await self._store.pause(checks.queue("queue", queue))

    async def resume(self, queue: str) -> None:
        """See `QueueStore.resume`."""
        await self._store.resume(checks.queue("queue", queue))

    async def limit(self, queue: str, concurrency: int | None) -> None:
        """See `QueueStore.limit`."""
        if concurrency is not None:
            checks.number("concurrency", concurrency, CONCURRENCY)
        await self._store.limit(checks.queue("queue", queue), concurrency)

    async def stats(self, queue: str | None) -> Sequence[QueueStats]:
        """See `QueueStore.stats`."""
        return await self._store.stats(None if queue is None else checks.queue("queue", queue))


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _checked_period(request: JobRequest) -> timedelta | None:
    period = request.dedupe_period
    if period is not None and not request.dedupe_key:
        raise InvalidArgumentError("dedupe_period", "must come with a dedupe_key")
    if period is not None and not timedelta() < period <= MAX_DEDUPE_PERIOD:
        raise InvalidArgumentError("dedupe_period", f"must be more than 0 and at most {MAX_DEDUPE_PERIOD.days} days")
    return period


def _check_storable(payload: Mapping[str, object]) -> None:
    try:
        size = len(json.dumps(payload, ensure_ascii=False, allow_nan=False).encode())
    except ValueError:
        raise InvalidArgumentError("payload", "must be JSON: numbers finite, text free of lone surrogates") from None
    if size > MAX_PAYLOAD:
        raise InvalidArgumentError("payload", f"must have at most {MAX_PAYLOAD} bytes of JSON, not {size}")
    if storable_json(payload) != payload:
        raise InvalidArgumentError("payload", "must not contain NUL characters")
