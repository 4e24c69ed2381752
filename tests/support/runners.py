"""Runners that a test plays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from promptpipe.ports.runners import Offer

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptpipe.model.leases import Claim, Work


@dataclass
class PlayedRunners:
    """`ports.runners.Runners`: note who is woken, and take what was leased for *offers*."""

    free: Callable[[Work], bool] = lambda _: True
    offers: dict[Work, Claim] = field(default_factory=dict)
    woken: list[Work] = field(default_factory=list)
    taken: list[Any] = field(default_factory=list)
    unanswered: int = 0

    def wake(self, work: Work) -> bool:
        self.woken.append(work)
        return self.free(work)

    def offer(self, work: Work) -> Offer | None:
        claim = self.offers.get(work)
        if claim is None:
            return None
        self.unanswered += 1
        return Offer(claim, self._take)

    def _take(self, items: Any) -> None:
        self.unanswered -= 1
        self.taken += items
