"""Reading Meta's webhooks: every shape, known or not, becomes an update; none is an error.

Shape: `{object, entry: [{id, changes: [{field, value}]}]}`; a value holds `metadata`, `contacts`, and any of
`messages`, `statuses`, `errors`. Fields, types and whole objects that nobody documented have been seen.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from promptpipe.channels.whatsapp.errors import describe
from promptpipe.channels.whatsapp.readable import NOT_CONVERSATIONAL, choice_id, readable
from promptpipe.model.errors import MalformedBodyError
from promptpipe.model.ids import MessageId
from promptpipe.model.inbound import InboundBatch, InboundMessage, InboundOther, InboundStatus
from promptpipe.model.messages import MessageStatus
from promptpipe.model.participants import Address, AddressKind, e164
from promptpipe.model.text import as_text, storable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from promptpipe.model.inbound import Update

CHANNEL = "whatsapp"
MAX_ID = 500
MAX_DIGITS = 15
_STATUSES = {
    "sent": MessageStatus.SENT,
    "delivered": MessageStatus.DELIVERED,
    "read": MessageStatus.READ,
    "played": MessageStatus.READ,
    "failed": MessageStatus.FAILED,
}
_MILLISECONDS_FROM = 100_000_000_000
"""Timestamps are unix seconds; values this large have been seen, and are milliseconds."""
_LATEST = 253_402_300_799  # the last second of the year 9999


def parse(body: bytes, phone_number_id: str) -> InboundBatch:
    """Return the updates in a webhook's *body*; raise `MalformedBodyError` when it is not a JSON object.

    Updates for another number than *phone_number_id* are counted, not returned.
    """
    try:
        return _parsed(body, phone_number_id)
    except RecursionError as error:
        raise MalformedBodyError("the body is nested too deeply") from error


def _parsed(body: bytes, phone_number_id: str) -> InboundBatch:
    payload = _json_object(body)
    updates: list[Update] = []
    foreign = 0
    changes = list(_changes(payload))
    if not changes:
        return InboundBatch((_other(payload, "unparsed", "", body),))
    for field, value in changes:
        metadata = value.get("metadata") if isinstance(value, dict) else None
        number_id = _identifier(metadata, "phone_number_id") if isinstance(metadata, dict) else None
        if number_id is not None and number_id != phone_number_id:
            foreign += 1
        elif not isinstance(value, dict) or number_id is None:
            updates.append(_other(value, field, number_id or ""))
        else:
            updates += _updates(value, field, number_id)
    return InboundBatch(tuple(updates), foreign)


def _json_object(body: bytes) -> dict[str, object]:
    try:
        payload = json.loads(body, parse_constant=_refuse_constant)
    except ValueError as error:
        raise MalformedBodyError("the body is not JSON") from error
    if not isinstance(payload, dict):
        raise MalformedBodyError("the body is not a JSON object")
    return payload


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _changes(payload: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Yield (field, value) of every change; what has no such shape is yielded under the field `unparsed`."""
    for entry in _items(payload.get("entry")):
        changes = _items(entry.get("changes")) if isinstance(entry, dict) else []
        if not changes:
            yield "unparsed", entry
        for change in changes:
            if isinstance(change, dict) and "value" in change:
                yield storable(as_text(change, "field") or "unparsed"), change["value"]
            else:
                yield "unparsed", change


def _updates(value: dict[str, object], field: str, number_id: str) -> Iterator[Update]:
    contacts = [contact for contact in _items(value.get("contacts")) if isinstance(contact, dict)]
    found = False
    for message in _items(value.get("messages")):
        found = True
        parsed = _message(message, contacts, number_id) if isinstance(message, dict) else None
        yield parsed or _other(message, "unparsed", number_id)
    for status in _items(value.get("statuses")):
        found = True
        parsed_status = _status(status, number_id) if isinstance(status, dict) else None
        yield parsed_status or _other(status, "unparsed", number_id)
    for error in _items(value.get("errors")):
        found = True
        yield _other(error, "errors", number_id)
    if not found:
        yield _other(value, field, number_id)


def _message(message: dict[str, object], contacts: list[dict[str, object]], number_id: str) -> InboundMessage | None:
    provider_id = _identifier(message, "id")
    type_ = as_text(message, "type")
    if provider_id is None or not type_:
        return None
    contact = _contact_of(message, contacts)
    profile = contact.get("profile")
    name = as_text(profile, "name") if isinstance(profile, dict) else None
    choice = choice_id(message)
    conversational = type_ not in NOT_CONVERSATIONAL and "group_id" not in message
    return InboundMessage(
        channel=CHANNEL,
        number_id=number_id,
        provider_id=provider_id,
        senders=_senders(message, contact),
        type=storable(type_),
        text=storable(readable(type_, message)),
        raw=_raw(message),
        provider_time=_time(message.get("timestamp")),
        sender_name=storable(name) if name else None,
        choice_id=storable(choice) if choice else None,
        conversational=conversational,
    )


def _contact_of(message: dict[str, object], contacts: list[dict[str, object]]) -> dict[str, object]:
    """Return the contact that sent a message; the only one there is, when it does not say."""
    for contact in contacts:
        if contact.get("wa_id") is not None and contact.get("wa_id") == message.get("from"):
            return contact
        if contact.get("user_id") is not None and contact.get("user_id") == message.get("from_user_id"):
            return contact
    return contacts[0] if len(contacts) == 1 and "group_id" not in message else {}


def _senders(message: dict[str, object], contact: dict[str, object]) -> tuple[Address, ...]:
    """Return the addresses of the sender: a phone number, a business-scoped user id, or both."""
    phone = e164(as_text(message, "from") or as_text(contact, "wa_id") or "")
    user_id = _identifier(message, "from_user_id") or _identifier(contact, "user_id")
    addresses = []
    if phone is not None:
        addresses.append(Address(CHANNEL, AddressKind.PHONE, phone))
    if user_id is not None:
        addresses.append(Address(CHANNEL, AddressKind.USER_ID, user_id))
    return tuple(addresses)


def _status(status: dict[str, object], number_id: str) -> InboundStatus | None:
    provider_id = _identifier(status, "id")
    state = _STATUSES.get(as_text(status, "status") or "")
    if provider_id is None or state is None:
        return None
    errors = [error for error in _items(status.get("errors")) if isinstance(error, dict)]
    return InboundStatus(
        channel=CHANNEL,
        number_id=number_id,
        provider_id=provider_id,
        status=state,
        raw=_raw(status),
        reference=_reference(as_text(status, "biz_opaque_callback_data")),
        provider_time=_time(status.get("timestamp")),
        error=storable(describe(errors[0])) if errors else None,
    )


def _reference(callback_data: str | None) -> tuple[MessageId, int] | None:
    """Return the message and attempt that our callback data names; None for anything not ours."""
    message_id, _, attempt = (callback_data or "").rpartition(":")
    number = _digits(attempt)
    return None if number is None or not message_id else (MessageId(storable(message_id)), number)


def _other(value: object, type_: str, number_id: str, raw: bytes | None = None) -> InboundOther:
    raw = _raw(value) if raw is None else raw
    return InboundOther(channel=CHANNEL, number_id=number_id, key=hashlib.sha256(raw).hexdigest(), type=type_, raw=raw)


def _raw(value: object) -> bytes:
    """Return *value* as JSON that keeps every character, escaped where need be."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode()


def _time(timestamp: object) -> datetime | None:
    """Return the instant of Meta's `timestamp`; None when it is not one."""
    value = _digits(timestamp if isinstance(timestamp, str) else str(timestamp))
    if value is None:
        return None
    seconds = value / 1000 if value >= _MILLISECONDS_FROM else value
    return datetime.fromtimestamp(seconds, UTC) if seconds <= _LATEST else None


def _digits(text: str) -> int | None:
    """Return the number that *text* writes in a few plain digits; None for anything else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS else None


def _identifier(data: Mapping[str, object], key: str) -> str | None:
    """Return the id under *key*, storable; None when it is no id."""
    value = as_text(data, key)
    return storable(value) if value and len(value) <= MAX_ID else None


def _items(value: object) -> list[object]:
    return value if isinstance(value, list) else []
