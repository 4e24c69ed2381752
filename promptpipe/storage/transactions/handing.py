"""Transactions whose work goes on in this process at once.

What a commit makes due would be claimed by a second one, a moment later, by a runner that it wakes. When that has room,
the first commit leases it on the spot, and brings it along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from promptpipe.model.leases import Work
from promptpipe.storage.transactions import deliveries, outbox_orders
from promptpipe.storage.transactions.transaction import Last, Taking

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from promptpipe.model.messages import InDoubtRules
    from promptpipe.ports.runners import Runners
    from promptpipe.storage.transactions.transaction import Database, Transaction

T = TypeVar("T")

HANDED = (Work.MAILBOX, Work.OUTBOX)


class HandingDatabase:
    """`Database` that has the runners of this process take what its transactions make due, if they offer to.

    A call whose answer was lost may have leased something that nobody knows of: it is due again when the lease ends,
    unless the call is repeated and finds it.
    """

    def __init__(self, database: Database, runners: Runners, rules: InDoubtRules) -> None:
        self._database = database
        self._runners = runners
        self._rules = rules

    async def write(self, function: Callable[[Transaction], Coroutine[Any, Any, T | Last[T]]]) -> T:
        """See `Database.write`."""
        offers = {work: offer for work in HANDED if (offer := self._runners.offer(work)) is not None}
        handed: dict[Work, Sequence[object]] = {}

        async def handing(tx: Transaction) -> tuple[T, dict[Work, Sequence[object]]]:
            takings = {work: Taking(offer.claim) for work, offer in offers.items()}
            tx.takings = takings
            result = await function(tx)
            if isinstance(result, Last):
                raise TypeError("what is handed over cannot wait for the end of its transaction")
            return result, {work: await self._hand_out(tx, work, taking) for work, taking in takings.items()}

        try:
            result, handed = await self._database.write(handing)
        finally:
            for work, offer in offers.items():
                offer.take(handed.get(work, ()))
        return result

    async def read(self, function: Callable[[Transaction], Coroutine[Any, Any, T]]) -> T:
        """See `Database.read`."""
        return await self._database.read(function)

    async def _hand_out(self, tx: Transaction, work: Work, taking: Taking) -> Sequence[object]:
        if not taking.leases:
            return ()
        if work is Work.MAILBOX:
            found = await deliveries.hand_out(tx, dict.fromkeys(taking.leases, taking.claim.depth))
            return [delivery for delivery in found.values() if delivery is not None]
        return await outbox_orders.first_orders(tx, taking.leases, taking.claim.seconds, self._rules)
