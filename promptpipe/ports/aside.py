"""Storage of events that were set aside. What `ports.store` says of its methods holds for these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from promptpipe.model.events import EventAside
    from promptpipe.model.ids import EventId, ParticipantId
    from promptpipe.model.listing import Page, PageRequest


class AsideStore(Protocol):
    """Events that could not be handled: out of their mailboxes, in nobody's way, kept until somebody decides."""

    async def list(self, participant_id: ParticipantId | None, page: PageRequest) -> Page[EventAside]:
        """Return them, the newest first; only those of one participant if given."""
        ...

    async def count(self) -> int:
        """Return how many there are."""
        ...

    async def retry(self, event_id: EventId) -> None:
        """Put one at the end of its mailbox, its attempts and the time for which it blocked counted anew.

        Raise `NotFoundError`, and `PreconditionError` for one that is in its mailbox.
        """
        ...

    async def drop(self, event_id: EventId) -> None:
        """Delete one. Raise `NotFoundError`, and `PreconditionError` for one that is in its mailbox."""
        ...
