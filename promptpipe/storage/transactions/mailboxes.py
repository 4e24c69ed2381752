"""Mailboxes: one holder at a time hands each event to its flow, and applies what that decided."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from promptpipe.model.errors import LeaseLostError, StoreUnavailableError, VersionConflictError
from promptpipe.model.events import Replied
from promptpipe.model.leases import Claimed, Lease, Work
from promptpipe.storage.transactions import decisions, deliveries, lanes, mailbox_events
from promptpipe.storage.transactions.floors import Floors
from promptpipe.storage.transactions.values import span

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from promptpipe.model.decisions import Decided, Decision, Delivery
    from promptpipe.model.ids import EventId
    from promptpipe.model.leases import Claim
    from promptpipe.storage.transactions.transaction import Database, Row, Transaction

    Following = Sequence[Delivery | Exception | None]


class MailboxTransactions:
    """`ports.store.MailboxStore`."""

    def __init__(self, database: Database, handing: Database) -> None:
        self._database = database
        self._handing = handing
        self._floors = Floors(lanes.LEVELS)

    async def claim(self, claim: Claim) -> Claimed[Delivery]:
        """See `MailboxStore.claim`."""
        return await self._database.write(partial(_claim, request=claim, floors=self._floors))

    async def decide(self, decided: Sequence[Decided]) -> Following:
        """See `MailboxStore.decide`."""
        try:
            return await self._handing.write(partial(_decide, decided=decided))
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  one that cannot be applied must not cost the others
            if len(decided) > 1:
                return [answer for item in decided for answer in await self.decide([item])]
            if isinstance(error, LeaseLostError):
                # Released, perhaps, by this very call, whose answer was lost.
                await self._handing.write(partial(_take_again, voided=[item.decision for item in decided]))
            return [error]

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


async def _claim(tx: Transaction, request: Claim, floors: Floors) -> Claimed[Delivery]:
    taken = await lanes.claim(tx, Work.MAILBOX, request, floors)
    held = taken.leases if taken.suspect is None else [*taken.leases, taken.suspect]
    handed = await deliveries.hand_out(tx, {lease: 1 if lease in taken.abandoned else request.depth for lease in held})
    return Claimed(
        items=[delivery for lease in taken.leases if (delivery := handed[lease.key]) is not None],
        suspect=None if taken.suspect is None else handed[taken.suspect.key],
        next_due_in=taken.due_in,
    )


async def _decide(tx: Transaction, decided: Sequence[Decided]) -> Following:
    """Apply decisions that all can be applied; raise why one cannot."""
    rows, removed = await tx.several(
        lanes.look(Work.MAILBOX, [item.delivery.lease for item in decided]),
        mailbox_events.removal([event.id for item in decided for event in item.events]),
    )
    held = lanes.held(Work.MAILBOX, rows)
    for item in decided:
        if item.delivery.lease not in held:
            raise lanes.lost(item.delivery.lease)
    valid = _with_events(decided, frozenset(row["id"] for row in removed))
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
    if len(valid) < len(decided):
        await _take_again(tx, [item.decision for item in decided if item not in valid])
    following: dict[str, Delivery | None] = {}
    for seconds in {item.next_within for item in decided}:
        depths = {item.delivery.lease: item.delivery.depth for item in decided if item.next_within == seconds}
        if seconds is None:
            await _release(tx, list(depths), 0.0)
            following |= dict.fromkeys(lease.key for lease in depths)
        else:
            await lanes.keep(tx, list(depths), seconds, orderly=True)
            following |= await deliveries.hand_out(tx, depths)
    return [following[item.delivery.lease.key] for item in decided]


def _with_events(decided: Sequence[Decided], removed: Collection[str]) -> list[Decided]:
    """Return those decisions that are to be applied, now that the events they are about are *removed*.

    Without its event a decision is void. Under a lease that holds, the event is gone because it was removed meanwhile
    (a timer canceled), or because this very call was committed before and its answer lost: go on. When only some of
    several are gone, the others are to be handled without them: raise `VersionConflictError`.
    """
    valid = []
    for item in decided:
        count = sum(event.id in removed for event in item.events)
        if count == len(item.events):
            valid.append(item)
        elif count:
            raise VersionConflictError(f"an event of {item.delivery.participant.id} was removed meanwhile")
    return valid


async def _take_again(tx: Transaction, voided: Sequence[Decision]) -> None:
    """Take the lanes in which this call has marked a message before, if it is repeated because its answer was lost."""
    taking, said = tx.takings.get(Work.OUTBOX), [say.id for decision in voided for say in decision.say]
    if taking is not None and said:
        rows = await tx.all("lanes_marked_for", ids=said, worker=taking.claim.worker)
        free = taking.among(row["key"] for row in rows)
        taking.leases += [Lease(Work.OUTBOX, row["key"], row["fence"]) for row in rows if row["key"] in free]


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
