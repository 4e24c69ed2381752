"""The way from a commit that makes work due to the runner of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptpipe.model.leases import Work
    from promptpipe.ports.runners import Offer

    MakeOffer = Callable[[], Offer | None]


class Wakeups:
    """`ports.runners.Runners`: passes the store's word of new work to the runner of its kind. Runners poll besides."""

    def __init__(self) -> None:
        self._wake: dict[Work, Callable[[], bool]] = {}
        self._offer: dict[Work, MakeOffer] = {}

    def subscribe(self, work: Work, wake: Callable[[], bool], offer: MakeOffer = lambda: None) -> None:
        """Call *wake* whenever a commit made some of *work* due; it returns whether the runner is free for it.

        *offer* is asked before a commit that may make some due.
        """
        self._wake[work] = wake
        self._offer[work] = offer

    def wake(self, work: Work) -> bool:
        """See `Runners.wake`."""
        wake = self._wake.get(work)
        return wake() if wake is not None else False

    def offer(self, work: Work) -> Offer | None:
        """See `Runners.offer`."""
        offer = self._offer.get(work)
        return offer() if offer is not None else None
