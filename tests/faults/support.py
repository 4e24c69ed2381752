"""What the fault tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from tests.support.service import Service

NOTHING_LEFT = {
    "leased lanes": "SELECT count(*) FROM lanes WHERE leased",
    "running jobs": "SELECT count(*) FROM jobs WHERE worker IS NOT NULL",
    "unhandled events": "SELECT count(*) FROM mailbox_events",
    "unsettled messages": "SELECT count(*) FROM outbox_messages WHERE status IN ('queued', 'sending', 'in_doubt')",
    "unprocessed responses": "SELECT count(*) FROM responses WHERE processed_at IS NULL",
}


def left_over(service: Service) -> dict[str, object]:
    """Return what is not yet at its end, by count."""
    return {what: service.rows(query)[0][0] for what, query in NOTHING_LEFT.items()}


async def wait_settled(service: Service, within: float) -> None:
    """Return as soon as everything is at its end; fail with what is left when it is not within *within* seconds.

    It looks from a thread and not too often, so that people and Meta go on meanwhile.
    """
    left: dict[str, object] = {}
    with trio.move_on_after(within):
        while True:
            left = await trio.to_thread.run_sync(left_over, service)
            if not any(left.values()):
                return
            await trio.sleep(0.2)
    raise AssertionError(f"not within {within} s: {left}")
