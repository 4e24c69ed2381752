"""What webhooks bring, on SQLite: one commit for a whole request, a savepoint for each update in it."""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from promptpipe.model.events import Replied
from promptpipe.model.ids import ResponseId
from promptpipe.model.inbound import InboundMessage, InboundOther, InboundStatus, IngestReport
from promptpipe.model.messages import AttemptState
from promptpipe.model.participants import Profile
from promptpipe.storage.sqlite import mailbox_events, messages, participants
from promptpipe.storage.sqlite.transaction import PERMANENT_DATA_ERRORS
from promptpipe.storage.sqlite.values import instant, maybe_micros

if TYPE_CHECKING:
    import sqlite3

    from promptpipe.model.inbound import Enrollment, InboundBatch, Update
    from promptpipe.storage.sqlite.database import Database
    from promptpipe.storage.sqlite.transaction import Transaction

UNPARSED = "unparsed"


class SqliteInbound:
    """`ports.store.InboundStore` on SQLite."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ingest(self, batch: InboundBatch, enrollment: Enrollment | None) -> IngestReport:
        """See `InboundStore.ingest`."""
        return await self._database.write(partial(_ingest, batch=batch, enrollment=enrollment))


def _ingest(tx: Transaction, batch: InboundBatch, enrollment: Enrollment | None) -> IngestReport:
    counts: Counter[str] = Counter()
    for update in batch.updates:
        try:
            with tx.savepoint():
                counts += _keep(tx, update, enrollment)
        except PERMANENT_DATA_ERRORS:
            # One update that cannot be stored as what it is must not cost the others, nor itself.
            with tx.savepoint():
                counts += _keep_raw(tx, update, UNPARSED)
    return IngestReport(**counts)


def _keep(tx: Transaction, update: Update, enrollment: Enrollment | None) -> Counter[str]:
    match update:
        case InboundMessage():
            return _keep_message(tx, update, enrollment)
        case InboundStatus():
            return _keep_status(tx, update)
        case InboundOther():
            return _keep_raw(tx, update, update.type)


def _first_time(tx: Transaction, update: Update, kind: str, provider_id: str, status: str = "") -> bool:
    """Note that a provider id was seen; return whether it was the first time."""
    return bool(
        tx.run(
            "mark_seen",
            channel=update.channel,
            number_id=update.number_id,
            kind=kind,
            provider_id=provider_id,
            status=status,
            now=tx.now,
        )
    )


def _keep_message(tx: Transaction, message: InboundMessage, enrollment: Enrollment | None) -> Counter[str]:
    if not _first_time(tx, message, "message", message.provider_id):
        return Counter(duplicates=1)
    participant_id = participants.find(tx, message.senders)
    enrolled = False
    if participant_id is not None:
        participants.link(tx, participant_id, message.senders)
        tx.run("set_participant_channel", id=participant_id, channel=message.channel, now=tx.now)
    elif enrollment is not None and message.conversational and message.senders:
        participant_id = participants.enroll(tx, message.senders, Profile(name=message.sender_name), enrollment)
        enrolled = True
    response_id = ResponseId(tx.ids())
    tx.run(
        "insert_response",
        id=response_id,
        participant_id=participant_id,
        channel=message.channel,
        number_id=message.number_id,
        message_id=message.provider_id,
        sender=message.senders[0].value if message.senders else "",
        type=message.type,
        text=message.text,
        raw=message.raw,
        provider_time=maybe_micros(message.provider_time),
        now=tx.now,
    )
    if participant_id is not None:
        event = Replied(
            response_id=response_id,
            channel=message.channel,
            type=message.type,
            text=message.text,
            said_at=message.provider_time or instant(tx.now),
            choice_id=message.choice_id,
            conversational=message.conversational,
        )
        mailbox_events.append(tx, participant_id, event)
    return Counter(stored=1, enrolled=int(enrolled))


def _keep_status(tx: Transaction, status: InboundStatus) -> Counter[str]:
    if not _first_time(tx, status, "status", status.provider_id, status.status.value):
        return Counter(duplicates=1)
    attempt = _attempt_of(tx, status)
    counts = Counter(stored=1)
    receipt_id = tx.ids()
    tx.run(
        "insert_receipt",
        id=receipt_id,
        channel=status.channel,
        message_id=None if attempt is None else attempt["message_id"],
        attempt=None if attempt is None else attempt["n"],
        provider_message_id=status.provider_id,
        status=status.status.value,
        error=messages.bounded(status.error),
        provider_time=maybe_micros(status.provider_time),
        raw=status.raw,
        now=tx.now,
    )
    if attempt is None:
        counts["unmatched"] = 1
        tx.run(
            "park_receipt",
            channel=status.channel,
            provider_id=status.provider_id,
            receipt_id=receipt_id,
            now=tx.now,
        )
    else:
        message = messages.row(tx, attempt["message_id"])
        provider_id, state = status.provider_id, AttemptState(status.status.value)
        messages.advance(tx, message, attempt["n"], state, provider_id=provider_id, error=status.error)
        messages.join_parked(tx, status.channel, provider_id, message["id"], attempt["n"])
    return counts


def _attempt_of(tx: Transaction, status: InboundStatus) -> sqlite3.Row | None:
    """Return the attempt that a status is about: by our own reference, else by the provider's id."""
    if status.reference is not None:
        message_id, n = status.reference
        attempt = tx.one("attempt", message_id=message_id, n=n)
        if attempt is not None:
            return attempt
    return tx.one("attempt_by_provider_id", channel=status.channel, provider_id=status.provider_id)


def _keep_raw(tx: Transaction, update: Update, type_: str) -> Counter[str]:
    key = update.key if isinstance(update, InboundOther) else hashlib.sha256(update.raw).hexdigest()
    if not _first_time(tx, update, "other", key):
        return Counter(duplicates=1)
    tx.run(
        "insert_response",
        id=tx.ids(),
        participant_id=None,
        channel=update.channel,
        number_id=update.number_id,
        message_id="",
        sender="",
        type=type_,
        text="",
        raw=update.raw,
        provider_time=None,
        now=tx.now,
    )
    return Counter(stored=1, unparsed=1)
