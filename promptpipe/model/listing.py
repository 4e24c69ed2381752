"""Lists in pages: the newest first, each page going on where the one before ended, whatever was added meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from promptpipe.model.ids import ParticipantId
    from promptpipe.model.jobs import JobStatus
    from promptpipe.model.messages import MessageStatus

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """At most *size* items, those that come *after* the item with that key; from the first when it is None."""

    size: int
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T_co]):
    """Some items of a list. *last* is the key of the last one when more follow, else None."""

    items: tuple[T_co, ...]
    last: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs to list; None stands for any."""

    status: JobStatus | None = None
    kind: str | None = None
    queue: str | None = None
    participant_id: ParticipantId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageFilter:
    """Which messages to list; None stands for any."""

    status: MessageStatus | None = None
    participant_id: ParticipantId | None = None
