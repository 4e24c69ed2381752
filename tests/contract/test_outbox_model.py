"""Outboxes beside a model: whatever is done to them, in whatever order, both say the same.

The model is as simple as can be: lists, no fences but the leases themselves. What it would not catch, it is no model
of; so it was tried, on copies of the tree with one thing changed in each. Without the comparison of fences (be it in
Python: SQLite returns the fence of the row), or of whether the lane is leased, in any one statement that makes it, it
fails on both back ends; and so it does without the attempt's fence by which a repeated call is told from a successor,
with a pace that spares the other lane or moves one that is held, with late results that undo what a status has told,
with heads taken in another order, and with acceptances under a lost lease thrown away.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import initialize, invariant, precondition, rule

from promptpipe.model.errors import LeaseLostError, PreconditionError
from promptpipe.model.ids import WorkerId
from promptpipe.model.messages import (
    AttemptState,
    InDoubtPolicy,
    MessageClass,
    MessageStatus,
    Resolution,
    SendOrder,
    SendRecord,
    Settlement,
    Verdict,
)
from promptpipe.storage.transactions import messages
from tests.support import lanes
from tests.support.database import LEASE_SECONDS, RULES, PostgresTestDatabase
from tests.support.outbox import MAX_ATTEMPTS, ModelMessage, Outbox
from tests.support.people import ADA, BOB, batch, enroll, message, receipt
from tests.support.stories import Story, tell_on_postgres, tell_on_sqlite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from promptpipe.model.ids import ParticipantId
    from promptpipe.model.leases import Lease

pytestmark = pytest.mark.slow

ME, OTHER = "worker-0", "worker-b"
"""The process that the store belongs to, and one that gives no sign of life."""
WORKERS = st.sampled_from([ME, OTHER])

DELAYS = {Verdict.RETRY: 5.0, Verdict.SLOW_RECIPIENT: 16.0, Verdict.SLOW_CHANNEL: 9.0, Verdict.PAUSE_CHANNEL: 40.0}
DELAYS |= {Verdict.LATER: 60.0}
TOGETHER = [Verdict.ACCEPTED, Verdict.ACCEPTED, Verdict.UNSENT, Verdict.DOUBTFUL, Verdict.RETRY, Verdict.REFUSED]
"""What concerns its own lane alone, so that the order in which results are recorded in one commit is all the same."""

NEWS = {
    MessageStatus.SENT: AttemptState.SENT,
    MessageStatus.FAILED: AttemptState.FAILED,
    MessageStatus.DELIVERED: AttemptState.DELIVERED,
    MessageStatus.READ: AttemptState.READ,
}


class OutboxesBesideAModel(Story):
    """Each rule does the same to the store and to the model."""

    @initialize()
    def begin(self) -> None:
        self.model = Outbox(outlives=isinstance(self.db, PostgresTestDatabase))
        self.leases: list[Lease] = []
        self.orders: list[SendOrder] = []
        self.keys: dict[str, str] = {}
        self.news = 0
        self.people: list[ParticipantId] = [self.portal(enroll, self.db, number) for number in (ADA, BOB)]

    # ------------------------------------------------------------ enqueuing

    @rule(data=st.data(), number=st.integers(1, 4))
    def enqueue(self, data: st.DataObject, number: int) -> None:
        for _ in range(number):
            lasts = data.draw(st.sampled_from([None, None, None, 20.0]))
            policy = data.draw(st.sampled_from([None, None, InDoubtPolicy.DROP, InDoubtPolicy.HOLD]))
            new = message(
                self.db,
                data.draw(st.sampled_from(self.people)),
                message_class=data.draw(st.sampled_from(MessageClass)),
                dedupe_key=data.draw(st.sampled_from([None, None, None, "k"])),
                expires_at=None if lasts is None else self.db.clock.now() + timedelta(seconds=lasts),
                in_doubt_policy=policy,
            )
            found, created = self.portal(self.db.store.outbox.enqueue, new)
            known = self.keys.get(new.dedupe_key or "")
            assert (found.id, created) == (known or new.id, known is None)
            if created:
                expires = None if lasts is None else self.model.now + lasts
                self.model.put(
                    ModelMessage(new.id, new.participant_id, new.message_class, policy or RULES.policy, expires)
                )
            if created and new.dedupe_key is not None:
                self.keys[new.dedupe_key] = new.id

    # ------------------------------------------------------------ sending

    @rule(worker=WORKERS, limit=st.integers(1, 4))
    def claim_later(self, worker: str, limit: int) -> None:
        """Claim when leases have ended."""
        self.pass_time(31.0)
        self.claim(worker, limit, set())

    @rule(worker=WORKERS, limit=st.integers(1, 4), places=st.sets(st.integers(0, 3), max_size=1))
    def claim(self, worker: str, limit: int, places: set[int]) -> None:
        held = [key for place, key in enumerate(sorted(self.model.lanes)) if place in places]
        claimed = self.portal(self.db.store.outbox.claim, self.db.claim(limit, worker=worker, held=held))
        leased, suspects, next_due_in = self.model.claim(worker, limit, held)
        assert {lease.key for lease in claimed.items} == {lane.key for lane in leased}
        assert ([] if claimed.suspect is None else [claimed.suspect.key]) == [lane.key for lane in suspects]
        assert claimed.next_due_in == next_due_in
        for lease in [*claimed.items, *([] if claimed.suspect is None else [claimed.suspect])]:
            assert lease not in self.leases
            self.model.lanes[lease.key].lease = lease
            self.leases.append(lease)

    def any_lease(self) -> st.SearchStrategy[Lease]:
        """Return one that is held, or was: of those lanes that are held under another now, too."""
        held = [lease for lease in self.leases if self.model.holder(lease)]
        lost = [it for it in self.leases if it not in held and self.model.lanes[it.key].lease is not None]
        return st.one_of([st.sampled_from(pool) for pool in (held, lost, self.leases) if pool])

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def mark(self, data: st.DataObject) -> None:
        some = data.draw(st.lists(self.any_lease(), min_size=1, max_size=3, unique_by=lambda lease: lease.key))
        answers = self.portal(self.db.store.outbox.mark_sending, some, seconds=LEASE_SECONDS)
        for lease, answer in zip(some, answers, strict=True):
            lane = self.model.holder(lease)
            self.note(answer, lease, None if lane is None else self.model.next_order(lane, orderly=False), lane is None)

    def note(
        self, answer: SendOrder | LeaseLostError | None, lease: Lease, expected: ModelMessage | None, lost: bool
    ) -> None:
        """Compare an answer with what it should be."""
        if lost:
            assert isinstance(answer, LeaseLostError)
        elif expected is None:
            assert answer is None
        else:
            assert isinstance(answer, SendOrder)
            assert (answer.lease, answer.message.id, answer.attempt) == (lease, expected.id, len(expected.attempts))
            self.orders.append(answer)

    def any_order(self, data: st.DataObject) -> SendOrder | None:
        """Return one if there is any: often one on its way, or on its way under a lease that is lost."""
        if not any(self.model.holder(it.lease) and self.is_out(it) for it in self.orders):
            self.enqueue(data, 4)
            self.claim_later(data.draw(WORKERS), 4)
            if self.leases:
                self.mark(data)
        current = [it for it in self.orders if self.model.holder(it.lease) and self.is_out(it)]
        stale = [it for it in self.orders if not self.model.holder(it.lease) and self.is_out(it)]
        repeated = [it for it in self.orders if self.model.holder(it.lease) and not self.is_out(it)]
        pools = [pool for pool in (current, current, current, stale, repeated, self.orders) if pool]
        return data.draw(st.sampled_from(data.draw(st.sampled_from(pools)))) if pools else None

    def is_out(self, order: SendOrder) -> bool:
        return self.model.messages[order.message.id].attempts[order.attempt - 1] is AttemptState.SENDING

    @rule(
        data=st.data(),
        verdict=st.sampled_from([*Verdict, Verdict.SLOW_RECIPIENT, Verdict.UNSENT]),
        goes_on=st.sampled_from([True, True, False]),
    )
    def record(self, data: st.DataObject, verdict: Verdict, goes_on: bool) -> None:
        if (order := self.any_order(data)) is not None:
            self.record_these([(order, verdict)], goes_on=goes_on)

    @rule(data=st.data(), verdicts=st.lists(st.sampled_from(TOGETHER), min_size=2, max_size=3))
    def record_together(self, data: st.DataObject, verdicts: list[Verdict]) -> None:
        orders = [self.any_order(data) for _ in verdicts]
        chosen = {order.lease.key: order for order in orders if order is not None}
        self.record_these(list(zip(chosen.values(), verdicts, strict=False)), goes_on=True)

    def record_these(self, results: list[tuple[SendOrder, Verdict]], *, goes_on: bool) -> None:
        records = [
            SendRecord(order, self.settlement(order, verdict), LEASE_SECONDS if goes_on else None)
            for order, verdict in results
        ]
        answers = self.portal(self.db.store.outbox.record, records)
        for it, answer in zip(records, answers, strict=True):
            lost = self.model.holder(it.order.lease) is None
            ours = self.model.messages[it.order.message.id]
            expected = self.model.record(ours, it.order.attempt, it.order.lease, it.settlement, goes_on=goes_on)
            self.note(answer, it.order.lease, expected, lost)

    def settlement(self, order: SendOrder, verdict: Verdict) -> Settlement:
        if verdict is Verdict.ACCEPTED:
            return Settlement(verdict=verdict, provider_id=f"wamid.{order.reference}")
        return Settlement(verdict=verdict, error="x", delay=DELAYS.get(verdict, 0.0))

    @precondition(lambda self: self.orders)
    @rule(data=st.data(), status=st.sampled_from(sorted(NEWS, key=lambda status: status.value)))
    def hear(self, data: st.DataObject, status: MessageStatus) -> None:
        """Ingest a status, which needs no lease and may come at any time."""
        order = data.draw(st.sampled_from(self.orders))
        self.news += 1
        update = receipt(status, f"wamid.status.{self.news}", (order.message.id, order.attempt))
        self.portal(self.db.store.inbound.ingest, batch(update), None)
        self.model.learn(self.model.messages[order.message.id], order.attempt, NEWS[status])

    # ------------------------------------------------------------ operators

    def any_message(self, data: st.DataObject) -> ModelMessage:
        return self.model.messages[data.draw(st.sampled_from(sorted(self.model.messages)))]

    def ask(self, call: Callable[..., object], *arguments: object, allowed: bool) -> None:
        if allowed:
            self.portal(call, *arguments)  # type: ignore[arg-type]
        else:
            with pytest.raises(PreconditionError):
                self.portal(call, *arguments)  # type: ignore[arg-type]

    @precondition(lambda self: self.model.messages)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        live = sorted(it.id for it in self.model.messages.values() if not it.status.settled)
        ours = self.model.messages[data.draw(st.sampled_from(live))] if live else self.any_message(data)
        self.ask(self.db.store.outbox.cancel, ours.id, allowed=self.model.cancel(ours))

    @precondition(lambda self: self.model.messages)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        ended = sorted(it.id for it in self.model.messages.values() if it.status.settled)
        ours = self.model.messages[data.draw(st.sampled_from(ended))] if ended else self.any_message(data)
        self.ask(self.db.store.outbox.retry, ours.id, allowed=self.model.retry(ours))

    @precondition(lambda self: self.model.messages)
    @rule(data=st.data(), resolution=st.sampled_from(Resolution))
    def resolve(self, data: st.DataObject, resolution: Resolution) -> None:
        doubts = [it for it in self.model.messages.values() if it.in_doubt]
        ours = doubts[0] if doubts else self.any_message(data)
        self.ask(self.db.store.outbox.resolve, ours.id, resolution, allowed=ours.in_doubt)
        if ours.in_doubt:
            match resolution:
                case Resolution.MARK_SENT:
                    self.model.learn(ours, len(ours.attempts), AttemptState.SENT)
                case Resolution.DROP:
                    ours.attempts[-1] = AttemptState.DROPPED
                    self.model.become(ours, MessageStatus.FAILED)
                case Resolution.RESEND:
                    self.model.resend(ours)

    # ------------------------------------------------------------ leases, workers, time

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def extend(self, data: st.DataObject) -> None:
        some = data.draw(st.lists(self.any_lease(), min_size=1, max_size=3, unique_by=lambda lease: lease.key))
        extension = self.portal(self.db.store.leases.extend, some, LEASE_SECONDS)
        held = {lease: self.model.holder(lease) for lease in some}
        assert extension.lost == {lease for lease, lane in held.items() if lane is None}
        for lane in held.values():
            if lane is not None:
                lane.due = self.model.now + LEASE_SECONDS

    @rule(worker=WORKERS)
    def drain(self, worker: str) -> None:
        """Give back all that a worker has."""
        assert self.portal(self.db.store.leases.give_back, WorkerId(worker)) == self.model.drain(worker)

    @rule()
    def recover(self) -> None:
        """Put in doubt what the other one was sending, which is not among the instances."""
        assert len(self.portal(self.db.store.recovery.requeue_stale_sending_messages)) == self.model.recover(OTHER)

    @rule()
    def restart_doubts(self) -> None:
        assert self.portal(self.db.store.recovery.restart_doubts) == self.model.restart_doubts()

    @rule(seconds=st.sampled_from([1.0, 7.0, 31.0, 121.0]))
    def pass_time(self, seconds: float) -> None:
        self.db.clock.advance(seconds)
        self.model.now += seconds

    # ------------------------------------------------------------ both say the same

    @invariant()
    def same_messages(self) -> None:
        attempts: dict[str, list[str]] = {}
        for message_id, state in self.db.rows("SELECT message_id, state FROM outbox_attempts ORDER BY message_id, n"):
            attempts.setdefault(message_id, []).append(state)
        found, order = {}, dict[str, list[str]]()
        query = "SELECT id, status, uncounted, not_before, lane_key, seq FROM outbox_messages ORDER BY lane_key, seq"
        for message_id, status, uncounted, not_before, lane_key, seq in self.db.rows(query):
            found[message_id] = (status, uncounted, self.seconds(not_before), attempts.get(message_id, []))
            if seq is not None:
                order.setdefault(lane_key, []).append(message_id)
        assert found == self.model.states()
        assert order == {
            key: [it.id for it in lane.messages] for key, lane in self.model.lanes.items() if lane.messages
        }

    @invariant()
    def same_lanes(self) -> None:
        assert self.lanes("outbox") == lanes.states(self.model.lanes.values())


@pytest.fixture(autouse=True)
def few_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let messages run out of attempts within a story."""
    monkeypatch.setattr(messages, "DEFAULT_MAX_ATTEMPTS", MAX_ATTEMPTS)


def test_outboxes_on_sqlite(tmp_path: Path) -> None:
    """Twenty-four stories of fifty steps."""
    tell_on_sqlite(OutboxesBesideAModel, tmp_path, stories=24)


def test_outboxes_on_postgres(shared_database: str) -> None:
    """The same stories."""
    tell_on_postgres(OutboxesBesideAModel, shared_database, stories=24)
