"""Leases: a claim on a piece of work that ends by itself, and the fence that proves it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from promptpipe.model.ids import WorkerId

T_co = TypeVar("T_co", covariant=True)

SUSPECT_FROM = 2
"""Crashes in a row from which a job or lane is a suspect: claimed alone, after the others (ADR 0004)."""


KEPT_SHARE = 0.8
"""How much of its length a lease on a lane has before it when an item under it has ended; all leases are extended
besides, so that moving it further each time would only be work."""


class Work(Enum):
    """What can be leased, and whose runner wakes when some of it becomes due."""

    JOB = "job"
    MAILBOX = "mailbox"
    OUTBOX = "outbox"
    RECOVERY = "recovery"
    SCHEDULE = "schedule"
    """Never leased: a schedule fires in one commit."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A claim on one job or lane.

    *fence* comes from one sequence per store and is never used twice, so a row that was deleted and made
    again cannot match an old lease.
    """

    work: Work
    key: str
    fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A request for due work.

    *seconds* is the lease's length; *held* names what this worker holds already: it is never handed out again,
    even when its lease is overdue. With *suspect*, one suspect is added when fewer than *limit* others were due. One
    that is not *thorough* may pass over what has become due behind what was claimed last, and over suspects. What
    becomes due later than *sight* seconds from now is not in sight.
    *queues* concerns jobs only, *depth* mailboxes: how many events of one are handed out at once.
    """

    worker: WorkerId
    limit: int
    seconds: float
    held: Collection[str] = ()
    suspect: bool = False
    thorough: bool = True
    sight: float = 86_400.0
    queues: Sequence[str] = ("default",)
    depth: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed(Generic[T_co]):
    """What a claim handed out, and the seconds until more becomes due (None: nothing in sight)."""

    items: Sequence[T_co]
    suspect: T_co | None = None
    next_due_in: float | None = None


@dataclass(frozen=True, slots=True)
class Extension:
    """The outcome of extending leases: which are lost, and which the operator asked to cancel."""

    lost: frozenset[Lease] = field(default_factory=frozenset)
    cancel_requested: frozenset[Lease] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class Instance:
    """A process that works on the database: which one, and how many signs of life it has given."""

    process: str
    beats: int
