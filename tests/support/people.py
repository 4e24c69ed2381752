"""People, messages and statuses for tests, as a channel would report them."""

from __future__ import annotations

import itertools
import json
import time
from typing import TYPE_CHECKING

from promptpipe.model.ids import MessageId, ParticipantId
from promptpipe.model.inbound import Enrollment, InboundBatch, InboundMessage, InboundStatus
from promptpipe.model.messages import MessageStatus, NewMessage, Text
from promptpipe.model.participants import Address, AddressKind

if TYPE_CHECKING:
    from promptpipe.model.inbound import Update
    from tests.support.database import Database

ENROLLMENT = Enrollment(flow_type="echo", handler_type="echo", current_state="ACTIVE")
NUMBER_ID = "106540352242922"
ADA = "+16505551234"
BOB = "+16505554321"

_serial = itertools.count(1)


def phone(number: str) -> Address:
    """Return a phone number on the channel of the tests."""
    return Address("whatsapp", AddressKind.PHONE, number)


def inbound(text: str = "hello", sender: str = ADA, provider_id: str | None = None, **other: object) -> InboundMessage:
    """Return a text message that someone wrote."""
    values: dict[str, object] = {
        "channel": "whatsapp",
        "number_id": NUMBER_ID,
        "provider_id": provider_id or f"wamid.in{next(_serial)}",
        "senders": (phone(sender),),
        "type": "text",
        "text": text,
        "raw": b"{}",
        **other,
    }
    return InboundMessage(**values)  # type: ignore[arg-type]


def receipt(
    status: MessageStatus,
    provider_id: str = "wamid.out",
    reference: tuple[str, int] | None = None,
    error: str | None = None,
) -> InboundStatus:
    """Return a delivery status."""
    return InboundStatus(
        channel="whatsapp",
        number_id=NUMBER_ID,
        provider_id=provider_id,
        status=status,
        raw=b"{}",
        reference=None if reference is None else (MessageId(reference[0]), reference[1]),
        error=error,
    )


def batch(*updates: Update) -> InboundBatch:
    """Return *updates* as one webhook request brings them."""
    return InboundBatch(updates)


def text_webhook(text: str = "hello", wamid: str = "wamid.1", sender: str = ADA) -> bytes:
    """Return the body of a webhook with a text message, written now."""
    message = {
        "from": sender.removeprefix("+"),
        "id": wamid,
        "timestamp": str(int(time.time())),  # noqa: TID251  what a phone says of its clock
        "type": "text",
        "text": {"body": text},
    }
    value = {"metadata": {"phone_number_id": NUMBER_ID}, "messages": [message]}
    return json.dumps({"entry": [{"changes": [{"field": "messages", "value": value}]}]}).encode()


async def enroll(db: Database, number: str = ADA) -> ParticipantId:
    """Enroll someone, their mailbox empty, and return their id."""
    await db.store.inbound.ingest(batch(inbound("hi", number)), ENROLLMENT)
    [(participant_id,)] = db.rows("SELECT participant_id FROM participant_addresses WHERE address = ?", number)
    db.change("DELETE FROM mailbox_events WHERE participant_id = ?", participant_id)
    db.change("UPDATE lanes SET due_at = NULL WHERE kind = 'mailbox' AND key = ?", participant_id)
    return ParticipantId(str(participant_id))


def message(db: Database, participant_id: ParticipantId, text: str = "hello", **other: object) -> NewMessage:
    """Return a message to someone."""
    values: dict[str, object] = {
        "id": MessageId(db.new_id()),
        "participant_id": participant_id,
        "channel": "whatsapp",
        "content": Text(text),
        **other,
    }
    return NewMessage(**values)  # type: ignore[arg-type]
