"""What a store knows of the runners of its process: that they are to be woken, and whether they are free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from promptpipe.model.leases import Claim, Work


@dataclass(frozen=True, slots=True)
class Offer:
    """A runner's word that it has room for what *claim* asks for, if a commit makes that due.

    *take* is called once, with what was leased for it: deliveries, or orders to send; nothing, if the commit did not
    come to be.
    """

    claim: Claim
    take: Callable[[Sequence[Any]], None]


class Runners(Protocol):
    """The runners of this process."""

    def wake(self, work: Work) -> bool:
        """Have the runner of *work* look for some; return whether there is one that is free for it."""
        ...

    def offer(self, work: Work) -> Offer | None:
        """Return what the runner of *work* would take at once; None when it has no room, or others wait already."""
        ...
