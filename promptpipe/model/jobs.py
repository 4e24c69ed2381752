"""Jobs: work due at a time. All timers are jobs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from promptpipe.model.retry import DEFAULT_MAX_ATTEMPTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

    from promptpipe.model.ids import JobId, ParticipantId
    from promptpipe.model.leases import Lease
    from promptpipe.model.messages import NewMessage

DEFAULT_QUEUE = "default"
QUEUE_NAME = re.compile(r"[A-Za-z0-9._:/-]{1,100}")
DEFAULT_PRIORITY = 1
PRIORITIES = range(4)
"""0 first, 3 last."""


class JobStatus(Enum):
    """Stored for people; a claim never searches for it."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELED = "canceled"


class OnConflict(Enum):
    """What enqueuing does when a live job has the same dedupe key.

    `KEEP` returns the existing one; if that one is running, it runs again afterwards with the new time and
    payload. `REPLACE` gives the existing one the new time and payload, attempts counted anew; a worker that
    runs it loses its lease.
    """

    KEEP = "keep"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to enqueue. One with a *participant_id* fires as an event in that person's mailbox.

    With a *dedupe_period* its key stays taken for so long, whatever becomes of it.
    """

    id: JobId
    kind: str
    run_at: datetime
    payload: Mapping[str, object] = field(default_factory=dict)
    queue: str = DEFAULT_QUEUE
    priority: int = DEFAULT_PRIORITY
    dedupe_key: str | None = None
    dedupe_period: timedelta | None = None
    on_conflict: OnConflict = OnConflict.KEEP
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    participant_id: ParticipantId | None = None

    def __post_init__(self) -> None:
        """Refuse a period without the key that is to stay taken."""
        if self.dedupe_period is not None and self.dedupe_key is None:
            raise ValueError("a dedupe_period without a dedupe_key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as the store holds it. *attempt* counts claims, this one included."""

    id: JobId
    kind: str
    queue: str
    priority: int
    status: JobStatus
    run_at: datetime
    payload: Mapping[str, object]
    attempt: int
    max_attempts: int
    created_at: datetime
    updated_at: datetime
    dedupe_key: str | None = None
    participant_id: ParticipantId | None = None
    last_error: str | None = None
    worker: str | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LeasedJob:
    """A job handed to a worker, with the lease it holds on it."""

    lease: Lease
    job: Job


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailure:
    """Why an attempt failed: the error's type and text, both bounded by the store."""

    type: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """What a job's handler wants done, once, in the commit that ends the job."""

    jobs: Sequence[NewJob] = ()
    messages: Sequence[NewMessage] = ()


@dataclass(frozen=True, slots=True)
class Finish:
    """The job is done; *effects* are applied in the same commit."""

    effects: Effects | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Run it again after *seconds*, unless its attempts are used up: then it failed."""

    seconds: float
    failure: JobFailure


@dataclass(frozen=True, slots=True)
class Snooze:
    """Run it again after *seconds*; the attempt does not count."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Fail:
    """It failed for good."""

    failure: JobFailure


@dataclass(frozen=True, slots=True)
class Cancel:
    """It was stopped because an operator asked, or its handler found that it is not wanted any more."""


@dataclass(frozen=True, slots=True)
class Fire:
    """It is a participant's: done, and an event in their mailbox, in one commit."""


Outcome = Finish | Retry | Snooze | Fail | Cancel | Fire


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of one leased run of a job."""

    lease: Lease
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """A queue: what was said of it, and how many jobs there are in it.

    *concurrency* is how many of its jobs may run at once on all instances, None for any number. *failed* ones are in
    the history. *lag* is for how many seconds the oldest of those that are *ready* has been due.
    """

    name: str
    paused: bool
    concurrency: int | None
    scheduled: int
    ready: int
    running: int
    failed: int
    lag: float
