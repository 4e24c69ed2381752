"""Outgoing messages as operators and other services see them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptpipe.model.ids import MessageId
from promptpipe.model.messages import MAX_TEXT, MessageClass, NewMessage, Text
from promptpipe.services import checks

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from promptpipe.model.ids import ParticipantId
    from promptpipe.model.listing import MessageFilter, Page, PageRequest
    from promptpipe.model.messages import InDoubtPolicy, OutboxMessage, Resolution
    from promptpipe.ports.store import OutboxStore, ParticipantStore


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRequest:
    """A text that somebody asks to have sent."""

    participant_id: ParticipantId
    text: str
    dedupe_key: str | None = None
    expires_at: datetime | None = None
    in_doubt_policy: InDoubtPolicy | None = None


class Messages:
    """The outbox."""

    def __init__(self, store: OutboxStore, participants: ParticipantStore, new_id: Callable[[], str]) -> None:
        self._store = store
        self._participants = participants
        self._new_id = new_id

    async def enqueue(self, request: MessageRequest) -> tuple[OutboxMessage, bool]:
        """Put a message into the outbox; return it, or the one with its dedupe key, and whether it was created.

        It goes where the person wrote last, after what flows have to reply.
        """
        text = checks.text("text", request.text, longest=MAX_TEXT, needed=True)
        person = await self._participants.get(request.participant_id)
        new = NewMessage(
            id=MessageId(self._new_id()),
            participant_id=person.id,
            channel=person.channel,
            content=Text(text),
            message_class=MessageClass.BROADCAST,
            dedupe_key=checks.key("dedupe_key", request.dedupe_key),
            expires_at=request.expires_at,
            in_doubt_policy=request.in_doubt_policy,
        )
        return await self._store.enqueue(new)

    async def get(self, message_id: MessageId) -> OutboxMessage:
        """Return a message; raise `NotFoundError`."""
        return await self._store.get(message_id)

    async def list(self, wanted: MessageFilter, page: PageRequest) -> Page[OutboxMessage]:
        """Return messages, the newest first."""
        return await self._store.list(wanted, page)

    async def resolve(self, message_id: MessageId, resolution: Resolution) -> OutboxMessage:
        """See `OutboxStore.resolve`."""
        return await self._store.resolve(message_id, resolution)

    async def retry(self, message_id: MessageId) -> OutboxMessage:
        """See `OutboxStore.retry`."""
        return await self._store.retry(message_id)

    async def cancel(self, message_id: MessageId) -> OutboxMessage:
        """See `OutboxStore.cancel`."""
        return await self._store.cancel(message_id)
