"""What is brought in from another database: rows as ours, and how far it has come."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from promptpipe.model.decisions import FlowState, Hook
from promptpipe.model.jobs import Job
from promptpipe.model.participants import Participant
from promptpipe.model.schedules import NewSchedule

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from promptpipe.model.history import Receipt, Response
    from promptpipe.model.messages import OutboxMessage

MAX_LISTED = 500
"""Problems of a table that are kept with their reasons; more are only counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedMessage:
    """A message, when it got its status, and before when it is not to be sent again."""

    message: OutboxMessage
    since: datetime
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedReceipt:
    """A delivery status, the channel it came by, and what is left of it as JSON bytes."""

    receipt: Receipt
    channel: str
    raw: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedResponse:
    """What somebody wrote, and which of our numbers they wrote it to."""

    response: Response
    number_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundMark:
    """That a message of the provider's has been seen, and when."""

    channel: str
    number_id: str
    provider_id: str
    seen_at: datetime


Told = ImportedMessage | ImportedReceipt | ImportedResponse | InboundMark
Imported = Participant | FlowState | Hook | Job | NewSchedule | Told


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row, named by its id in the old table, or a part of it was not imported."""

    row: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TableProgress:
    """How far a table has come: after the row at *position*, with so many rows *read*.

    *skipped* are here already, or were erased since. A row may have several *problems*, and be imported without what
    they are about. Of these the first `MAX_LISTED` are *listed*.
    """

    table: str
    position: str | None = None
    finished: bool = False
    read: int = 0
    imported: int = 0
    skipped: int = 0
    problems: int = 0
    listed: tuple[Problem, ...] = ()

    def after(
        self,
        *,
        position: str | None,
        finished: bool,
        read: int,
        imported: int,
        skipped: int,
        problems: Sequence[Problem],
    ) -> TableProgress:
        """Return the progress after some more rows, of which so many were *imported*, and so on."""
        return replace(
            self,
            position=self.position if position is None else position,
            finished=finished,
            read=self.read + read,
            imported=self.imported + imported,
            skipped=self.skipped + skipped,
            problems=self.problems + len(problems),
            listed=(*self.listed, *problems)[:MAX_LISTED],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportPage:
    """Rows of a source that arrive in one commit, which takes its table from *before* to *after*."""

    source: str
    before: TableProgress
    after: TableProgress
    rows: tuple[Imported, ...]
