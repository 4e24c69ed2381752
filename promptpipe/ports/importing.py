"""Storage of what is brought in from another database. What `ports.store` says of its methods holds for these."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from promptpipe.model.ids import ParticipantId
    from promptpipe.model.importing import ImportPage, TableProgress


class Known(Enum):
    """What is looked for by ids: rows by their own, states by their people's, marks by the provider's messages'."""

    PARTICIPANTS = "participants"
    CONVERSATIONS = "conversations"
    JOBS = "jobs"
    MESSAGES = "messages"
    MARKS = "marks"
    RECEIPTS = "receipts"
    RESPONSES = "responses"
    ERASED = "tombstones"


class ImportView(Protocol):
    """What there is before anything is brought in."""

    async def owners(self, channel: str, numbers: Collection[str]) -> Mapping[str, ParticipantId]:
        """Return who has which of these phone numbers on a channel."""
        ...

    async def known(self, what: Known, ids: Collection[str]) -> frozenset[str]:
        """Return those of *ids* that there are."""
        ...


class ImportStore(ImportView, Protocol):
    """Bringing rows in. Those that are there stay as they are, whatever is brought."""

    async def in_use(self) -> bool:
        """Return whether a service works on this database."""
        ...

    async def unfinished(self) -> Sequence[str]:
        """Return from which places imports were begun that have not come to their end."""
        ...

    async def give_up(self) -> None:
        """Forget these imports; what they have brought stays."""
        ...

    async def progress(self, source: str) -> Mapping[str, TableProgress]:
        """Return how far the tables of a source have come, by their names; none before it was begun."""
        ...

    async def begin(self, source: str, place: str, tables: Sequence[str]) -> None:
        """Begin with the first row of each table of a source, whatever has come from its *place* before."""
        ...

    async def apply(self, page: ImportPage) -> bool:
        """Bring a page in and note how far its table has come, in one commit.

        Return False, with nothing done, when the table is not as far as it was *before*, or somebody else has got a
        phone number that the page brings.
        """
        ...
