"""What webhooks bring: one commit for a whole request, a savepoint for each update in it."""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

import structlog

from promptpipe.model.errors import NotFoundError, StoreUnavailableError, described
from promptpipe.model.events import Replied
from promptpipe.model.ids import ResponseId
from promptpipe.model.inbound import InboundMessage, InboundOther, InboundStatus, IngestReport
from promptpipe.model.leases import Work
from promptpipe.model.messages import AttemptState
from promptpipe.model.participants import Profile
from promptpipe.storage.transactions import erasing, mailbox_events, messages, participants
from promptpipe.storage.transactions.transaction import ConflictError
from promptpipe.storage.transactions.values import micros, to_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from promptpipe.model.ids import ParticipantId
    from promptpipe.model.inbound import Enrollment, InboundBatch, Update
    from promptpipe.storage.transactions.participants import Owners
    from promptpipe.storage.transactions.transaction import Database, Row, Transaction

UNPARSED = "unparsed"

log = structlog.get_logger(__name__)


class InboundTransactions:
    """`ports.store.InboundStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ingest(self, batch: InboundBatch, enrollment: Enrollment | None) -> IngestReport:
        """See `InboundStore.ingest`."""
        try:
            return await self._database.write(partial(_ingest_together, batch=batch, enrollment=enrollment))
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, it is met again, and concerns one update then
            log.debug("updates not kept at first", error=described(error))
        return await self._database.write(partial(_ingest_each, batch=batch, enrollment=enrollment))


async def _ingest_together(tx: Transaction, batch: InboundBatch, enrollment: Enrollment | None) -> IngestReport:
    """Keep all updates or none, messages in a row from people who are known in one go."""
    await _lock_names(tx, batch)
    senders = [sender for update in batch.updates if isinstance(update, InboundMessage) for sender in update.senders]
    owners: Owners = {}
    if len(batch.updates) > 1:
        owners = participants.owners(await tx.all("writers", addresses=participants.as_json(senders)))
        await tx.lock_lanes({lane for update in batch.updates for lane in await _lanes_of(tx, update, owners)})
    counts: Counter[str] = Counter()
    for known, row in groupby(batch.updates, key=lambda update: _is_from_known(update, owners)):
        if known:
            counts += await _keep_messages(tx, [it for it in row if isinstance(it, InboundMessage)], owners)
        else:
            for update in row:
                counts += await _keep(tx, update, enrollment)
    return IngestReport(**counts)


def _is_from_known(update: Update, owners: Owners) -> bool:
    """Return whether an update is a message from someone who has all its addresses."""
    if not isinstance(update, InboundMessage) or not update.senders:
        return False
    return all((sender.channel, sender.value) in owners for sender in update.senders)


async def _lock_names(tx: Transaction, batch: InboundBatch) -> None:
    await tx.lock_names(
        {
            messages.provider_name(update.channel, update.provider_id)
            for update in batch.updates
            if isinstance(update, InboundStatus)
        }
    )


async def _ingest_each(tx: Transaction, batch: InboundBatch, enrollment: Enrollment | None) -> IngestReport:
    """Keep every update that can be, each in a savepoint, and as it came if it cannot be stored as what it is."""
    await _lock_names(tx, batch)
    if tx.contended and len(batch.updates) > 1:
        await tx.lock_lanes([lane for update in batch.updates for lane in await _storable_lanes_of(tx, update)])
    counts: Counter[str] = Counter()
    for update in batch.updates:
        try:
            async with tx.savepoint():
                counts += await _keep(tx, update, enrollment)
        except Exception as error:
            if not tx.is_permanent(error):
                raise
            # One update that cannot be stored as what it is must not cost the others, nor itself.
            async with tx.savepoint():
                counts += await _keep_raw(tx, update, UNPARSED)
    return IngestReport(**counts)


async def _storable_lanes_of(tx: Transaction, update: Update) -> list[tuple[Work, str]]:
    """Return the lanes that keeping an update will lock, as far as they exist; none for what cannot be stored."""
    try:
        async with tx.savepoint():
            senders = participants.as_json(update.senders if isinstance(update, InboundMessage) else ())
            owners = participants.owners(await tx.all("writers", addresses=senders))
            return await _lanes_of(tx, update, owners)
    except Exception as error:
        if not tx.is_permanent(error):
            raise
        return []


async def _lanes_of(tx: Transaction, update: Update, owners: Owners) -> list[tuple[Work, str]]:
    """Return the lanes that keeping an update will lock, as far as they exist."""
    match update:
        case InboundMessage(senders=senders):
            participant_id = participants.first_owner(owners, senders)
            return [] if participant_id is None else [(Work.MAILBOX, participant_id)]
        case InboundStatus() if tx.contended:
            attempt = await _attempt_of(tx, update)
            return [] if attempt is None else messages.lanes_of(await _message_of(tx, attempt))
        case _:
            return []


async def _keep(tx: Transaction, update: Update, enrollment: Enrollment | None) -> Counter[str]:
    match update:
        case InboundMessage():
            return await _keep_message(tx, update, enrollment)
        case InboundStatus():
            return await _keep_status(tx, update)
        case InboundOther():
            return await _keep_raw(tx, update, update.type)


async def _first_time(tx: Transaction, update: Update, kind: str, provider_id: str, status: str = "") -> bool:
    """Note that a provider id was seen; return whether it was the first time."""
    return bool(await tx.all("mark_seen", marks=to_json([_mark(update, kind, provider_id, status)])))


def _mark(update: Update, kind: str, provider_id: str, status: str = "") -> dict[str, str]:
    return {
        "channel": update.channel,
        "number_id": update.number_id,
        "kind": kind,
        "provider_id": provider_id,
        "status": status,
    }


async def _keep_message(tx: Transaction, message: InboundMessage, enrollment: Enrollment | None) -> Counter[str]:
    marked, owned = await tx.several(
        ("mark_seen", {"marks": to_json([_mark(message, "message", message.provider_id)])}),
        ("writers", {"addresses": participants.as_json(message.senders)}),
    )
    if not marked:
        return Counter(duplicates=1)
    owners = participants.owners(owned)
    participant_id = participants.first_owner(owners, message.senders)
    enrolled = False
    if participant_id is not None:
        unknown = [address for address in message.senders if (address.channel, address.value) not in owners]
        await participants.link(tx, participant_id, unknown)
        await tx.run("set_participants_channel", ids=[participant_id], channel=message.channel)
    elif enrollment is not None and message.conversational and message.senders:
        participant_id = await participants.enroll(tx, message.senders, Profile(name=message.sender_name), enrollment)
        enrolled = True
    response_id = ResponseId(tx.ids())
    await tx.run(
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
        provider_time=message.provider_time,
    )
    if participant_id is not None:
        event = _replied(message, response_id, message.provider_time or await tx.now())
        await mailbox_events.append(tx, [(participant_id, event)])
    return Counter(stored=1, enrolled=int(enrolled))


def _replied(message: InboundMessage, response_id: ResponseId, said_at: datetime) -> Replied:
    return Replied(
        response_id=response_id,
        channel=message.channel,
        type=message.type,
        text=message.text,
        said_at=said_at,
        choice_id=message.choice_id,
        conversational=message.conversational,
    )


async def _keep_messages(tx: Transaction, several: Sequence[InboundMessage], owners: Owners) -> Counter[str]:
    """Keep messages from people who are known as `_keep_message` would keep each."""
    marks = [_mark(message, "message", message.provider_id) for message in several]
    fresh = {_seen_as(row) for row in await tx.all("mark_seen", marks=to_json(marks))}
    kept: list[tuple[ParticipantId, InboundMessage, ResponseId]] = []
    for message in several:
        owner = participants.first_owner(owners, message.senders)
        seen_as = (message.channel, message.number_id, message.provider_id)
        if owner is not None and seen_as in fresh:
            fresh.remove(seen_as)
            kept.append((owner, message, ResponseId(tx.ids())))
    if kept:
        now = await tx.now()
        channels = {owner: message.channel for owner, message, _ in kept}
        for channel in set(channels.values()):
            ids = sorted(owner for owner, last in channels.items() if last == channel)
            await tx.run("set_participants_channel", ids=ids, channel=channel)
        await tx.run("insert_responses", responses=to_json([_response(*one) for one in kept]))
        events = [(owner, _replied(message, id_, message.provider_time or now)) for owner, message, id_ in kept]
        await mailbox_events.append(tx, events)
    return Counter(stored=len(kept), duplicates=len(several) - len(kept))


def _seen_as(row: Row) -> tuple[str, str, str]:
    return row["channel"], row["number_id"], row["provider_id"]


def _response(participant_id: ParticipantId, message: InboundMessage, response_id: ResponseId) -> dict[str, object]:
    """Return the row of a message; raise `UnicodeDecodeError` when it came as no text."""
    return {
        "id": response_id,
        "participant_id": participant_id,
        "channel": message.channel,
        "number_id": message.number_id,
        "message_id": message.provider_id,
        "sender": message.senders[0].value,
        "type": message.type,
        "text": message.text,
        "raw": message.raw.decode(),
        "provider_time": micros(message.provider_time),
    }


async def _keep_status(tx: Transaction, status: InboundStatus) -> Counter[str]:
    if not await _first_time(tx, status, "status", status.provider_id, status.status.value):
        return Counter(duplicates=1)
    attempt = await _attempt_of(tx, status)
    if attempt is None and status.reference is not None and await erasing.was_erased(tx, status.reference[0]):
        return Counter(unmatched=1)
    counts = Counter(stored=1)
    receipt_id = tx.ids()
    await tx.run(
        "insert_receipt",
        id=receipt_id,
        channel=status.channel,
        message_id=None if attempt is None else attempt["message_id"],
        attempt=None if attempt is None else attempt["n"],
        provider_message_id=status.provider_id,
        status=status.status.value,
        error=messages.bounded(status.error),
        provider_time=status.provider_time,
        raw=status.raw,
    )
    if attempt is None:
        counts["unmatched"] = 1
        await tx.run(
            "park_receipt",
            channel=status.channel,
            provider_id=status.provider_id,
            receipt_id=receipt_id,
        )
    else:
        message = await _message_of(tx, attempt)
        provider_id, state = status.provider_id, AttemptState(status.status.value)
        await messages.advance(tx, message, attempt["n"], state, provider_id=provider_id, error=status.error)
        await messages.join_parked(tx, status.channel, provider_id, message["id"], attempt["n"])
    return counts


async def _attempt_of(tx: Transaction, status: InboundStatus) -> Row | None:
    """Return the attempt that a status is about: by our own reference, else by the provider's id."""
    if status.reference is not None:
        message_id, n = status.reference
        attempt = await tx.one("attempt", message_id=message_id, n=n)
        if attempt is not None:
            return attempt
    return await tx.one("attempt_by_provider_id", channel=status.channel, provider_id=status.provider_id)


async def _message_of(tx: Transaction, attempt: Row) -> Row:
    """Return the message of an attempt, to change; raise `ConflictError` when it was erased with its person."""
    try:
        return await messages.held_row(tx, attempt["message_id"])
    except NotFoundError:
        raise ConflictError("a message was erased at the same time") from None


async def _keep_raw(tx: Transaction, update: Update, type_: str) -> Counter[str]:
    key = update.key if isinstance(update, InboundOther) else hashlib.sha256(update.raw).hexdigest()
    if not await _first_time(tx, update, "other", key):
        return Counter(duplicates=1)
    await tx.run(
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
    )
    return Counter(stored=1, unparsed=1)
