"""Mailboxes: one holder at a time hands each event to its flow, and applies what that decided."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from promptpipe.model.decisions import Delivery
from promptpipe.model.errors import (
    FlowError,
    LeaseLostError,
    NotFoundError,
    StoreUnavailableError,
    VersionConflictError,
)
from promptpipe.model.events import Replied, StoredEvent, decoded
from promptpipe.model.ids import EventId
from promptpipe.model.leases import Claimed, Work
from promptpipe.storage.transactions import decisions, lanes, mailbox_events, participants
from promptpipe.storage.transactions.values import from_json, span

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from promptpipe.model.decisions import Decided
    from promptpipe.model.leases import Claim, Lease
    from promptpipe.storage.transactions.participants import Conversation
    from promptpipe.storage.transactions.transaction import Database, Row, Transaction

    Following = Sequence[Delivery | Exception | None]

OUT_OF_ATTEMPTS = "out of attempts: its worker vanished in the last that was left"


class MailboxTransactions:
    """`ports.store.MailboxStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, claim: Claim) -> Claimed[Delivery]:
        """See `MailboxStore.claim`."""
        return await self._database.write(partial(_claim, request=claim))

    async def decide(self, decided: Sequence[Decided]) -> Following:
        """See `MailboxStore.decide`."""
        try:
            return await self._database.write(partial(_decide, decided=decided))
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  one that cannot be applied must not cost the others
            if len(decided) == 1:
                return [error]
            return [answer for item in decided for answer in await self.decide([item])]

    async def retry(
        self, lease: Lease, event_id: EventId, *, error: str, delay: float, blocked: float, limit: float
    ) -> bool:
        """See `MailboxStore.retry`."""
        return await self._database.write(
            partial(
                _retry,
                lease=lease,
                event_id=event_id,
                error=error,
                delay=delay,
                blocked=blocked,
                limit=limit,
            )
        )

    async def give_back(self, lease: Lease) -> None:
        """See `MailboxStore.give_back`."""
        await self._database.write(partial(_give_back, lease=lease))


async def _claim(tx: Transaction, request: Claim) -> Claimed[Delivery]:
    taken = await lanes.claim(tx, Work.MAILBOX, request)
    held = taken.leases if taken.suspect is None else [*taken.leases, taken.suspect]
    deliveries = await _hand_out(tx, {lease: 1 if lease in taken.abandoned else request.depth for lease in held})
    return Claimed(
        items=[delivery for lease in taken.leases if (delivery := deliveries[lease.key]) is not None],
        suspect=None if taken.suspect is None else deliveries[taken.suspect.key],
        next_due_in=taken.due_in,
    )


async def _hand_out(tx: Transaction, depths: Mapping[Lease, int]) -> dict[str, Delivery | None]:
    """Hand out the heads of held mailboxes, setting aside what cannot be; release those that are empty.

    *depths* says how many events of each are handed out at once. Return them by the mailboxes' keys.
    """
    deliveries: dict[str, Delivery | None] = {lease.key: None for lease in depths}
    waiting = list(depths)
    while waiting:
        keys = [lease.key for lease in waiting]
        rows, *about = await tx.several(
            mailbox_events.look(keys, max(depths[lease] for lease in waiting)), *participants.look(keys)
        )
        events, conversations = mailbox_events.by_mailbox(rows), participants.conversations(*about)
        await lanes.release(tx, [lease for lease in waiting if lease.key not in events], None)
        waiting = [lease for lease in waiting if lease.key in events]
        for lease in waiting:
            [head, *behind] = events[lease.key][: depths[lease]]
            try:
                delivery = _delivery(lease, head, conversations.get(lease.key))
            except NotFoundError:
                await mailbox_events.remove(tx, [head["id"]])  # of somebody who was erased
            except (FlowError, ValueError) as error:
                await mailbox_events.set_aside(tx, head, str(error))
            else:
                deliveries[lease.key] = replace(delivery, behind=tuple(_readable(behind)), depth=depths[lease])
        fit = [lease for lease in waiting if deliveries[lease.key] is not None]
        if fit:
            await tx.run("hand_out_events", ids=[events[lease.key][0]["id"] for lease in fit])
        waiting = [lease for lease in waiting if deliveries[lease.key] is None]
    return deliveries


def _delivery(lease: Lease, head: Row, conversation: Conversation | None) -> Delivery:
    """Return a head as it is handed out; raise what says why it cannot be."""
    if head["attempt"] >= head["max_attempts"]:
        raise FlowError(OUT_OF_ATTEMPTS)
    if conversation is None:
        raise NotFoundError("participant", lease.key)
    return Delivery(
        lease=lease,
        event=_stored(head, attempt=head["attempt"] + 1),
        participant=conversation.participant,
        states=conversation.states(),
        hooks=conversation.hooks(),
    )


def _readable(rows: Sequence[Row]) -> Iterator[StoredEvent]:
    """Give events that wait behind a head, until one comes that is to be looked at when it is the head."""
    for row in rows:
        try:
            yield _stored(row, attempt=1)
        except (FlowError, ValueError):
            return


def _stored(row: Row, *, attempt: int) -> StoredEvent:
    return StoredEvent(
        id=EventId(row["id"]),
        attempt=attempt,
        blocked=row["blocked"].total_seconds(),
        created_at=row["created_at"],
        event=decoded(row["kind"], from_json(row["payload"])),
    )


async def _decide(tx: Transaction, decided: Sequence[Decided]) -> Following:
    [rows] = await tx.several(lanes.look(Work.MAILBOX, [item.delivery.lease for item in decided]))
    held = lanes.held(Work.MAILBOX, rows)
    ours = [item for item in decided if item.delivery.lease in held]
    valid = await _removed(tx, ours)
    await decisions.apply(tx, [(item.delivery.participant.id, item.decision) for item in valid])
    responses = [
        stored.event.response_id for item in valid for stored in item.events if isinstance(stored.event, Replied)
    ]
    if responses:
        await tx.run("mark_responses_processed", ids=responses)
    for item in valid:
        if item.decision.refusal is not None:
            reason = mailbox_events.bounded(item.decision.refusal)
            await tx.run("insert_refusal", event_id=item.delivery.event.id, reason=reason)
    following: dict[str, Delivery | None] = {}
    for seconds in {item.next_within for item in ours}:
        depths = {item.delivery.lease: item.delivery.depth for item in ours if item.next_within == seconds}
        if seconds is None:
            await _release(tx, list(depths), 0.0)
            following |= dict.fromkeys(lease.key for lease in depths)
        else:
            await lanes.keep(tx, list(depths), seconds, orderly=True)
            following |= await _hand_out(tx, depths)
    return [following[lease.key] if (lease := item.delivery.lease) in held else lanes.lost(lease) for item in decided]


async def _removed(tx: Transaction, ours: Sequence[Decided]) -> list[Decided]:
    """Remove the events that decisions are about, and return those decisions that are to be applied.

    Without its event a decision is void. Under a lease that holds, the event is gone because it was removed meanwhile
    (a timer canceled), or because this very call was committed before and its answer lost: go on. When only some of
    several are gone, the others are to be handled without them: raise `VersionConflictError`.
    """
    gone = await mailbox_events.remove(tx, [event.id for item in ours for event in item.events])
    valid = []
    for item in ours:
        removed = sum(event.id in gone for event in item.events)
        if removed == len(item.events):
            valid.append(item)
        elif removed:
            raise VersionConflictError(f"an event of {item.delivery.participant.id} was removed meanwhile")
    return valid


async def _retry(
    tx: Transaction, lease: Lease, event_id: EventId, error: str, delay: float, blocked: float, limit: float
) -> bool:
    await lanes.check(tx, lease)
    head = await _checked_head(tx, lease, event_id)
    hopeless: bool = head["attempt"] >= head["max_attempts"] or head["blocked"].total_seconds() + blocked >= limit
    if hopeless:
        await mailbox_events.set_aside(tx, head, error)
    else:
        await tx.run("note_event_error", id=event_id, blocked=span(blocked), last_error=mailbox_events.bounded(error))
    await _release(tx, [lease], 0.0 if hopeless else delay)
    return hopeless


async def _give_back(tx: Transaction, lease: Lease) -> None:
    await lanes.check(tx, lease)
    await tx.run("give_event_back", participant_id=lease.key)
    await _release(tx, [lease], 0.0)


async def _checked_head(tx: Transaction, lease: Lease, event_id: EventId) -> Row:
    head = (await mailbox_events.heads(tx, [lease.key])).get(lease.key)
    if head is None or head["id"] != event_id:
        raise LeaseLostError(f"the event {event_id} is no longer the head of its mailbox")
    return head


async def _release(tx: Transaction, leases: Sequence[Lease], delay: float) -> None:
    """Release mailboxes; those that are not empty are due in *delay* seconds."""
    heads = await mailbox_events.heads(tx, [lease.key for lease in leases])
    due_at = await tx.now() + span(delay)
    await lanes.release(tx, [lease for lease in leases if lease.key in heads], due_at)
    await lanes.release(tx, [lease for lease in leases if lease.key not in heads], None)
