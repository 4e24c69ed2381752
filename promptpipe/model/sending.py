"""The policy of sending: how long a message waits after each kind of refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.messages import SendResult, Settlement, Verdict
from promptpipe.model.retry import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

_BACKOFFS = {
    Verdict.RETRY: Backoff(base=2.0, cap=600.0),
    Verdict.UNSENT: Backoff(base=0.5, cap=30.0),
    # Meta: one message per six seconds to one person; after a refusal, wait 4^n seconds.
    Verdict.SLOW_RECIPIENT: Backoff(base=4.0, cap=3600.0, factor=4.0),
    Verdict.SLOW_CHANNEL: Backoff(base=2.0, cap=60.0),
}
_FIXED = {
    Verdict.PAUSE_CHANNEL: 300.0,
    Verdict.LATER: 24 * 3600.0,
}


def settle(result: SendResult, attempt: int, random: Callable[[], float]) -> Settlement:
    """Return what the store is to record for *result* of a message's *attempt* (1 for the first).

    The provider's own wish for a delay wins. A recipient's pace is never shortened by jitter.
    """
    verdict = result.verdict
    if result.delay is not None:
        delay = result.delay
    elif verdict in _FIXED:
        delay = _FIXED[verdict]
    elif verdict is Verdict.SLOW_RECIPIENT:
        delay = _BACKOFFS[verdict].limit(attempt)
    elif verdict in _BACKOFFS:
        delay = _BACKOFFS[verdict].delay(attempt, random)
    else:
        delay = 0.0
    return Settlement(verdict=verdict, provider_id=result.provider_id, error=result.error, delay=delay)
