"""`HistoryService`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.ids import MessageId, ParticipantId
from promptpipe.rpc import convert
from promptpipe.rpc.paging import next_page_token, page_request
from promptpipe.rpc.pb.promptpipe import v1

if TYPE_CHECKING:
    from promptpipe.ports.store import HistoryStore


class HistoryHandlers(v1.HistoryServiceBase):
    """See `history.proto`."""

    def __init__(self, history: HistoryStore) -> None:
        self._history = history

    async def list_responses(self, message: v1.ListResponsesRequest) -> v1.ListResponsesResponse:
        """List what webhooks brought."""
        whose = None if message.participant_id is None else ParticipantId(message.participant_id)
        page = await self._history.responses(whose, page_request(message))
        return v1.ListResponsesResponse(
            responses=[convert.response(item) for item in page.items], next_page_token=next_page_token(message, page)
        )

    async def list_receipts(self, message: v1.ListReceiptsRequest) -> v1.ListReceiptsResponse:
        """List delivery statuses."""
        about = None if message.message_id is None else MessageId(message.message_id)
        page = await self._history.receipts(about, page_request(message))
        return v1.ListReceiptsResponse(
            receipts=[convert.receipt(item) for item in page.items], next_page_token=next_page_token(message, page)
        )
