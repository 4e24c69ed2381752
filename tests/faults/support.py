"""What the fault tests share."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

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


def root(*arguments: str) -> list[str]:
    """Return the command that starts the tests' composition root."""
    return [sys.executable, "-m", "tests.faults.root", *arguments]
