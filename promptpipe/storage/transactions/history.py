"""Responses and receipts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from promptpipe.model.history import Receipt, Response
from promptpipe.model.ids import MessageId, ParticipantId, ResponseId
from promptpipe.model.messages import MessageStatus
from promptpipe.storage.transactions.pages import page

if TYPE_CHECKING:
    from promptpipe.model.listing import Page, PageRequest
    from promptpipe.storage.transactions.transaction import Database, Row, Transaction


class HistoryTransactions:
    """`ports.store.HistoryStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def responses(self, participant_id: ParticipantId | None, page: PageRequest) -> Page[Response]:
        """See `HistoryStore.responses`."""
        return await self._database.read(partial(_responses, participant_id=participant_id, request=page))

    async def receipts(self, message_id: MessageId | None, page: PageRequest) -> Page[Receipt]:
        """See `HistoryStore.receipts`."""
        return await self._database.read(partial(_receipts, message_id=message_id, request=page))


async def _responses(tx: Transaction, participant_id: ParticipantId | None, request: PageRequest) -> Page[Response]:
    if participant_id is None:
        return await page(tx, "list_responses", request, _as_response)
    return await page(tx, "list_responses_of", request, _as_response, participant_id=participant_id)


async def _receipts(tx: Transaction, message_id: MessageId | None, request: PageRequest) -> Page[Receipt]:
    if message_id is None:
        return await page(tx, "list_receipts", request, _as_receipt)
    return await page(tx, "list_receipts_of", request, _as_receipt, message_id=message_id)


def _as_response(row: Row) -> Response:
    return Response(
        id=ResponseId(row["id"]),
        participant_id=None if row["participant_id"] is None else ParticipantId(row["participant_id"]),
        channel=row["channel"],
        message_id=row["message_id"],
        sender=row["sender"],
        type=row["type"],
        text=row["text"],
        raw=row["raw"],
        provider_time=row["provider_time"],
        received_at=row["received_at"],
        processed_at=row["processed_at"],
    )


def _as_receipt(row: Row) -> Receipt:
    return Receipt(
        id=row["id"],
        message_id=None if row["message_id"] is None else MessageId(row["message_id"]),
        provider_message_id=row["provider_message_id"],
        status=MessageStatus(row["status"]),
        error=row["error"],
        provider_time=row["provider_time"],
        received_at=row["received_at"],
    )
