"""What is to be sent next: heads of lanes, marked SENDING before they leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.messages import AttemptState, InDoubtPolicy, MessageStatus, SendOrder
from promptpipe.storage.transactions import lanes, messages
from promptpipe.storage.transactions.values import span, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from promptpipe.model.leases import Lease
    from promptpipe.model.messages import InDoubtRules
    from promptpipe.storage.transactions.transaction import Row, Transaction

SENDER_VANISHED = "its sender vanished while the request was on its way"
DROPPED = "dropped: no status came within the wait"
SENT_AGAIN = "no status came within the wait; sent again"


def look(leases: Sequence[Lease]) -> list[tuple[str, dict[str, object]]]:
    """Return the statements, with their values, whose answers `next_orders` needs."""
    return [("head_messages", {"keys": [lease.key for lease in leases]}), ("paused_channels", {})]


async def first_orders(
    tx: Transaction, leases: Sequence[Lease], lease_seconds: float, rules: InDoubtRules
) -> list[SendOrder]:
    """Mark the heads of lanes SENDING that this transaction has leased, and return what is to be sent."""
    found = await tx.several(*look(leases))
    orders = await next_orders(tx, leases, found, lease_seconds, rules, orderly=False)
    return [order for order in orders.values() if order is not None]


async def next_orders(
    tx: Transaction,
    leases: Sequence[Lease],
    found: Sequence[Sequence[Row]],
    lease_seconds: float,
    rules: InDoubtRules,
    *,
    orderly: bool,
) -> dict[Lease, SendOrder | None]:
    """Do what `next_order` does for the lanes of checked leases; for plain heads, in one statement each.

    *found* are the answers of `look`, which may say more than is asked for.
    """
    head_rows, channels = found
    heads = {row["lane_key"]: row for row in head_rows}
    paused = {row["name"] for row in channels}
    plain = {
        head["id"]: lease
        for lease in leases
        if (head := heads.get(lease.key)) is not None and _is_plain(head) and head["channel"] not in paused
    }
    marked = {plain[row["id"]]: row for row in await tx.all("mark_sending", ids=list(plain))} if plain else {}
    following: dict[Lease, SendOrder | None] = {order.lease: order for order in await _orders(tx, marked)}
    await lanes.keep(tx, list(marked), lease_seconds, orderly=orderly)
    empty = [lease for lease in leases if lease.key not in heads]
    if empty:
        await lanes.release(tx, empty, None)
        following |= dict.fromkeys(empty)
    for lease in leases:
        if lease not in following:
            following[lease] = await next_order(tx, lease, lease_seconds, rules, orderly=orderly)
    return following


def _is_plain(head: Row) -> bool:
    """Return whether a head only waits to be sent."""
    queued: bool = head["status"] == MessageStatus.QUEUED.value
    return queued and head["attempts"] - head["uncounted"] < head["max_attempts"]


async def _orders(tx: Transaction, marked: Mapping[Lease, Row]) -> list[SendOrder]:
    """Record the attempts of messages that were marked, and return their orders."""
    attempts = [
        {"message_id": row["id"], "n": row["attempts"], "fence": lease.fence, "channel": row["channel"]}
        for lease, row in marked.items()
    ]
    if attempts:
        await tx.run("insert_attempts", attempts=to_json(attempts))
    return [SendOrder(lease, messages.as_message(row), row["attempts"]) for lease, row in marked.items()]


async def next_order(
    tx: Transaction, lease: Lease, lease_seconds: float, rules: InDoubtRules, *, orderly: bool
) -> SendOrder | None:
    """Mark the head of a checked lane SENDING, or release the lane when there is nothing to send now."""
    while (head := await tx.one("head_message", lane_key=lease.key)) is not None:
        if head["status"] == MessageStatus.SENDING.value:
            attempt = await tx.the("attempt", message_id=head["id"], n=head["attempts"])
            if attempt["fence"] == lease.fence:
                # The commit that marked it was this very call's, whose answer was lost: it has not left.
                await lanes.keep(tx, [lease], lease_seconds, orderly=orderly)
                return SendOrder(lease, messages.as_message(head), head["attempts"])
            start = await tx.now() + span(rules.linger)
            await messages.doubt(tx, head, head["attempts"], rules, start=start, error=SENDER_VANISHED)
            head = await messages.row(tx, head["id"])
        if head["status"] == MessageStatus.IN_DOUBT.value and head["doubt_until"] > await tx.now():
            await lanes.release(tx, [lease], head["doubt_until"])
            return None
        pause = await tx.one("channel_pause", name=head["channel"])
        if pause is not None:
            await lanes.release(tx, [lease], pause["paused_until"])
            return None
        marked = await _marked(tx, head, rules)
        if marked is None:
            continue
        [order] = await _orders(tx, {lease: marked})
        await lanes.keep(tx, [lease], lease_seconds, orderly=orderly)
        return order
    await lanes.release(tx, [lease], None)
    return None


async def _marked(tx: Transaction, head: Row, rules: InDoubtRules) -> Row | None:
    """Mark a head SENDING and return its row, or settle why it must not go out: then it has left the lane."""
    in_doubt = head["status"] == MessageStatus.IN_DOUBT.value
    policy = InDoubtPolicy(head["in_doubt_policy"]) if head["in_doubt_policy"] else rules.policy
    if in_doubt and policy is InDoubtPolicy.HOLD:
        await messages.leave_lane(tx, head)
        return None
    exhausted = head["attempts"] - head["uncounted"] >= head["max_attempts"]
    if not exhausted and not (in_doubt and policy is InDoubtPolicy.DROP):
        marked = await tx.one("mark_sending", ids=[head["id"]])
        if marked is not None:
            if in_doubt:
                await give_up(tx, head, SENT_AGAIN)
            return marked
    if in_doubt:
        await give_up(tx, head, DROPPED)
        await messages.set_status(tx, head, MessageStatus.FAILED, error=DROPPED)
    elif exhausted:
        await messages.set_status(tx, head, MessageStatus.FAILED, error=f"out of attempts: {head['last_error']}")
    elif head["expires_at"] is not None and head["expires_at"] <= await tx.now():
        await messages.set_status(tx, head, MessageStatus.EXPIRED)
    else:
        await messages.set_status(tx, head, MessageStatus.CANCELED)
    return None


async def give_up(tx: Transaction, head: Row, error: str) -> None:
    """Take the attempt in doubt for failed."""
    await messages.set_attempt(tx, head["id"], head["attempts"], AttemptState.DROPPED, error=error)
