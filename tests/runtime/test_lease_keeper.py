"""Keeping leases: what is lost is stopped, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
import trio.testing

from promptpipe.metrics import PrometheusMetrics
from promptpipe.model.leases import Extension, Lease, Work
from promptpipe.ports.metrics import SILENT
from promptpipe.runtime.lease_keeper import LeaseKeeper
from promptpipe.runtime.persistence import Persistence
from promptpipe.services.observations import Observation
from tests.support.clock import ManualClock
from tests.support.scrape import scraped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptpipe.ports.metrics import Metrics

LEASE_SECONDS = 30.0


class Store:
    """Says that every lease is lost, once it is let."""

    def __init__(self) -> None:
        self.asked: list[Sequence[Lease]] = []
        self.gate = trio.Event()

    async def extend(self, leases: Sequence[Lease], seconds: float) -> Extension:
        assert seconds == LEASE_SECONDS
        self.asked.append(leases)
        await self.gate.wait()
        return Extension(lost=frozenset(leases))

    async def give_back(self, worker: object) -> int:
        raise NotImplementedError(worker)


def keeper_of(store: Store, metrics: Metrics = SILENT) -> LeaseKeeper:
    persistence = Persistence(lambda: 0.5, lambda: None)
    return LeaseKeeper(store, ManualClock(), persistence, lease_seconds=LEASE_SECONDS, metrics=metrics)


async def test_work_whose_lease_is_lost_is_stopped(autojump_clock: trio.testing.MockClock) -> None:
    """At the next look, a third of the lease later."""
    store = Store()
    store.gate.set()
    keeper = keeper_of(store)
    async with trio.open_nursery() as nursery:
        await nursery.start(keeper.run)
        with trio.CancelScope() as scope:
            keeper.take(Lease(Work.MAILBOX, "ada", 1), 0.0, scope)
            await trio.sleep_forever()
        assert autojump_clock.current_time() == LEASE_SECONDS / 3
        nursery.cancel_scope.cancel()


async def test_lease_is_lost_once(autojump_clock: trio.testing.MockClock) -> None:
    """However long the work takes to stop, nobody asks for it again."""
    store, metrics = Store(), PrometheusMetrics(["default"])
    store.gate.set()
    keeper = keeper_of(store, metrics)
    async with trio.open_nursery() as nursery:
        await nursery.start(keeper.run)
        with trio.CancelScope() as scope:
            keeper.take(Lease(Work.MAILBOX, "ada", 1), 0.0, scope)
            with trio.CancelScope(shield=True):
                await trio.sleep(LEASE_SECONDS)
        nursery.cancel_scope.cancel()
    assert len(store.asked) == 1
    assert scraped(metrics.page(Observation(), ready=True))["leases_lost_total{mailbox}"] == 1


async def test_what_was_given_up_meanwhile_stops_nobody_else(autojump_clock: trio.testing.MockClock) -> None:
    """A lane released while leases are extended is missing in the answer. Its task may do other work by then."""
    store = Store()
    keeper = keeper_of(store)
    async with trio.open_nursery() as nursery:
        await nursery.start(keeper.run)
        with trio.CancelScope() as scope:
            released = keeper.take(Lease(Work.MAILBOX, "ada", 1), 0.0, scope)
            again = keeper.take(Lease(Work.MAILBOX, "bob", 1), 0.0, scope)
            await trio.sleep(LEASE_SECONDS / 3 + 1)
            assert len(store.asked) == 1
            keeper.drop(released)
            keeper.drop(again)
            keeper.take(Lease(Work.MAILBOX, "bob", 2), 0.0, scope)
            store.gate.set()
            await trio.testing.wait_all_tasks_blocked()
        assert not scope.cancel_called
        nursery.cancel_scope.cancel()
    assert autojump_clock.current_time() < LEASE_SECONDS
