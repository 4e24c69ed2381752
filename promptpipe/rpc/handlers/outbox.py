"""`OutboxService`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from promptpipe.model.errors import InvalidArgumentError
from promptpipe.model.ids import MessageId, ParticipantId
from promptpipe.model.listing import MessageFilter
from promptpipe.model.messages import InDoubtPolicy, MessageStatus, Resolution
from promptpipe.rpc import convert
from promptpipe.rpc.handlers.choices import exactly_one
from promptpipe.rpc.paging import next_page_token, page_request
from promptpipe.rpc.pb.promptpipe import v1
from promptpipe.services.messages import MessageRequest

if TYPE_CHECKING:
    from promptpipe.services.messages import Messages
    from promptpipe.services.participants import Participants


class OutboxHandlers(v1.OutboxServiceBase):
    """See `outbox.proto`."""

    def __init__(self, messages: Messages, participants: Participants) -> None:
        self._messages = messages
        self._participants = participants

    async def enqueue_message(self, message: v1.EnqueueMessageRequest) -> v1.EnqueueMessageResponse:
        """Put a message into the outbox."""
        content = exactly_one(message, "text", "template", "interactive", "media")
        if content != "text":
            raise GRPCError(Status.UNIMPLEMENTED, f"{content} messages are not sent yet; text is")
        request = MessageRequest(
            participant_id=await self._recipient(message),
            text=message.text or "",
            dedupe_key=message.dedupe_key,
            expires_at=message.expires_at,
            in_doubt_policy=convert.enum_value("in_doubt_policy", message.in_doubt_policy, InDoubtPolicy),
        )
        enqueued, created = await self._messages.enqueue(request)
        return v1.EnqueueMessageResponse(message=convert.message(enqueued), created=created)

    async def get_message(self, message: v1.GetMessageRequest) -> v1.GetMessageResponse:
        """Return a message."""
        return v1.GetMessageResponse(message=convert.message(await self._messages.get(MessageId(message.message_id))))

    async def list_messages(self, message: v1.ListMessagesRequest) -> v1.ListMessagesResponse:
        """List messages."""
        wanted = MessageFilter(
            status=convert.enum_value("status", message.status, MessageStatus),
            participant_id=None if message.participant_id is None else ParticipantId(message.participant_id),
        )
        page = await self._messages.list(wanted, page_request(message))
        return v1.ListMessagesResponse(
            messages=[convert.message(item) for item in page.items], next_page_token=next_page_token(message, page)
        )

    async def retry_message(self, message: v1.RetryMessageRequest) -> v1.RetryMessageResponse:
        """Send a message again."""
        retried = await self._messages.retry(MessageId(message.message_id))
        return v1.RetryMessageResponse(message=convert.message(retried))

    async def cancel_message(self, message: v1.CancelMessageRequest) -> v1.CancelMessageResponse:
        """Take a message back."""
        canceled = await self._messages.cancel(MessageId(message.message_id))
        return v1.CancelMessageResponse(message=convert.message(canceled))

    async def resolve_in_doubt(self, message: v1.ResolveInDoubtRequest) -> v1.ResolveInDoubtResponse:
        """Settle a message in doubt."""
        resolution = convert.enum_value("resolution", message.resolution, Resolution)
        if resolution is None:
            raise InvalidArgumentError("resolution", "must be one of: RESEND, DROP, MARK_SENT")
        resolved = await self._messages.resolve(MessageId(message.message_id), resolution)
        return v1.ResolveInDoubtResponse(message=convert.message(resolved))

    async def _recipient(self, message: v1.EnqueueMessageRequest) -> ParticipantId:
        if exactly_one(message, "to", "participant_id") == "to":
            return (await self._participants.with_number("to", message.to or "")).id
        return ParticipantId(message.participant_id or "")
