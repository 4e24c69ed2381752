"""Mailboxes beside a model: whatever is done to them, in whatever order, both say the same.

The model is as simple as can be: lists, no fences but the leases themselves. What it would not catch, it is no model
of; so it was tried, on copies of the tree with one thing changed in each. Without the comparison of fences, or of
whether the lane is leased, in any one statement that makes it, it fails on both back ends; and so it does without the
check of the lease in any one call, with a decision that is applied though its event is gone, with heads taken in
another order, or with an attempt or a crash not counted, counted though given back, or kept beyond an orderly end; and
when several events are handed out after a crash, or handled though one of them is gone.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import initialize, invariant, precondition, rule

from promptpipe.model.decisions import Decided, Decision, Say, StateChange
from promptpipe.model.errors import LeaseLostError, VersionConflictError
from promptpipe.model.ids import JobId, MessageId, ParticipantId, WorkerId
from promptpipe.model.jobs import Ending, Fire, NewJob
from promptpipe.model.leases import Work
from promptpipe.model.listing import PageRequest
from promptpipe.model.messages import Text
from promptpipe.storage.transactions import mailbox_events
from tests.support import lanes
from tests.support.database import LEASE_SECONDS
from tests.support.deciding import commit
from tests.support.mailboxes import MAX_ATTEMPTS, Mailbox, ModelEvent, name_of
from tests.support.people import ENROLLMENT, batch, enroll, inbound
from tests.support.stories import Story, tell_on_postgres, tell_on_sqlite

if TYPE_CHECKING:
    from pathlib import Path

    from promptpipe.model.decisions import Delivery
    from promptpipe.model.leases import Lease

pytestmark = pytest.mark.slow

NUMBERS = ("+16505550001", "+16505550002", "+16505550003")
NOBODY = ("", 0, 1, 0)
KEYS = ("reminder", "feedback")
ME, OTHER = "worker-0", "worker-b"
"""The process that the store belongs to, and one that gives no sign of life."""
WORKERS = st.sampled_from([ME, OTHER])
DEPTHS = st.sampled_from([1, 1, 2, 3])
Offer: TypeAlias = tuple[str, int, int, int]
OFFERS: st.SearchStrategy[Offer] = st.tuples(WORKERS, st.sampled_from([0, 1, 3]), DEPTHS, st.sampled_from([0, 7, 7, 7]))
"""Whose room a commit may use, for how many, how deep, and in which place the mailbox is that is held there."""

BLOCK_LIMIT = 60.0
MARKS_KEPT = 60.0


class MailboxesBesideAModel(Story):
    """Each rule does the same to the store and to the model."""

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.mailboxes: dict[ParticipantId, Mailbox] = {}
        self.numbers: dict[ParticipantId, str] = {}
        self.deliveries: list[Delivery] = []
        self.marks: dict[str, tuple[str, float]] = {}
        self.told = 0
        for number in NUMBERS:
            person = self.portal(enroll, self.db, number)
            self.mailboxes[person] = Mailbox(person)
            self.numbers[person] = number
        self.tell([NUMBERS[0], NUMBERS[0], NUMBERS[1]], NOBODY)

    # ------------------------------------------------------------ appending

    @rule(numbers=st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=4), offer=OFFERS)
    def tell(self, numbers: list[str], offer: Offer) -> None:
        """Ingest one webhook of messages, some of them of the same person."""
        self.offer(offer)
        names = [f"{self.told + n}" for n in range(len(numbers))]
        self.told += len(numbers)
        self.ingest([(f"wamid.{name}", name, number) for name, number in zip(names, numbers, strict=True)])

    @precondition(lambda self: self.marks)
    @rule(data=st.data())
    def tell_again(self, data: st.DataObject) -> None:
        """Ingest a message that was acknowledged and comes again all the same."""
        wamid = data.draw(st.sampled_from(sorted(self.marks)))
        self.told += 1
        self.ingest([(wamid, f"{self.told}", self.marks[wamid][0])])

    def ingest(self, messages: list[tuple[str, str, str]]) -> None:
        updates = [inbound(name, number, wamid) for wamid, name, number in messages]
        report = self.portal(self.db.store.inbound.ingest, batch(*updates), ENROLLMENT)
        new = [message for message in messages if self.forgotten(message[0])]
        assert (report.stored, report.duplicates) == (len(new), len(messages) - len(new))
        self.marks |= {wamid: (number, self.now) for wamid, _, number in new}
        people = {number: person for person, number in self.numbers.items()}
        self.put([(self.mailboxes[people[number]], ModelEvent(name)) for _, name, number in new])

    def put(self, events: list[tuple[Mailbox, ModelEvent]]) -> None:
        """Put events into mailboxes in one commit, and note what was handed over with it."""
        idle = {mailbox.key for mailbox, _ in events if mailbox.due is None}
        for mailbox, event in events:
            mailbox.put(event, self.now)
        handed, self.db.runners.taken = self.db.runners.taken, []
        claim = self.db.runners.offers.get(Work.MAILBOX)
        if claim is None:
            assert handed == []
            return
        wanted = [key for key in dict.fromkeys(mailbox.key for mailbox, _ in events) if key not in claim.held]
        expected = {}
        for key in wanted[: claim.limit]:
            if key not in idle:
                continue
            mailbox = self.mailboxes[ParticipantId(key)]
            mailbox.take(claim.worker, self.now)
            mailbox.depth = claim.depth
            expected[key] = mailbox.hand_out()
        for delivery in handed:
            self.note(delivery, expected.pop(delivery.lease.key))
        assert expected == {}

    def forgotten(self, wamid: str) -> bool:
        return wamid not in self.marks or self.marks[wamid][1] < 0.0

    @rule()
    def forget(self) -> None:
        """Do maintenance: what came long ago is forgotten, and may come again."""
        after: object = None
        prune = self.db.store.maintenance.prune_inbound_marks
        while (after := self.portal(prune, timedelta(seconds=MARKS_KEPT), after)) is not None:
            pass
        for wamid, (number, seen_at) in self.marks.items():
            if seen_at < self.now - MARKS_KEPT:
                self.marks[wamid] = (number, -1.0)

    def offer(self, offer: Offer) -> None:
        """Have room for what the next commit makes due, or none."""
        worker, room, depth, place = offer
        held = sorted(self.mailboxes)[place : place + 1]
        claim = self.db.claim(room, worker=worker, held=held, depth=depth)
        self.db.runners.offers = {Work.MAILBOX: claim} if room else {}

    @rule(data=st.data(), key=st.sampled_from(KEYS), offer=OFFERS)
    def fire(self, data: st.DataObject, key: str, offer: Offer) -> None:
        """Let a timer fire, unless one with this key waits already."""
        self.offer(offer)
        mailbox = self.any_mailbox(data)
        own_key = f"{mailbox.key}/{key}"
        if any(event.key == own_key for event in mailbox.events):
            return
        job = NewJob(
            id=JobId(self.db.new_id()),
            kind="t",
            run_at=self.db.clock.now(),
            dedupe_key=own_key,
            participant_id=mailbox.key,  # type: ignore[arg-type]
        )
        self.portal(self.db.store.jobs.enqueue, job)
        [leased] = self.portal(self.db.store.jobs.claim, self.db.claim()).items
        assert self.portal(self.db.store.jobs.finish, [Ending(leased.lease, Fire())]) == frozenset()
        self.put([(mailbox, ModelEvent(job.id, own_key))])

    def any_mailbox(self, data: st.DataObject) -> Mailbox:
        return self.mailboxes[data.draw(st.sampled_from(sorted(self.mailboxes)))]

    # ------------------------------------------------------------ handling

    @rule(worker=WORKERS, limit=st.integers(1, 3), depth=DEPTHS)
    def claim_later(self, worker: str, limit: int, depth: int) -> None:
        """Claim when leases have ended."""
        self.pass_time(31.0)
        self.claim(worker, limit, set(), depth)

    @rule(worker=WORKERS, limit=st.integers(1, 3), places=st.sets(st.integers(0, 5), max_size=2), depth=DEPTHS)
    def claim(self, worker: str, limit: int, places: set[int], depth: int) -> None:
        held = [key for place, key in enumerate(sorted(self.mailboxes)) if place in places]
        request = self.db.claim(limit, worker=worker, held=held, depth=depth)
        claimed = self.portal(self.db.store.mailboxes.claim, request)
        leased, suspects = lanes.claim(self.mailboxes.values(), self.now, worker, limit, held)
        # Those that turn out to be empty, because all in them goes aside, included: it does no harm to look too soon.
        waiting = [box.due - self.now for box in self.mailboxes.values() if box.due is not None and box.due > self.now]
        assert claimed.next_due_in == min(waiting, default=None)
        expected = {}
        for mailbox in leased + suspects:
            assert isinstance(mailbox, Mailbox)
            mailbox.depth = 1 if mailbox.crashes else depth
            expected[mailbox.key] = mailbox.hand_out()
        for delivery in claimed.items:
            self.note(delivery, expected.pop(delivery.lease.key))
        if claimed.suspect is not None:
            assert [mailbox.key for mailbox in suspects] == [claimed.suspect.lease.key]
            self.note(claimed.suspect, expected.pop(claimed.suspect.lease.key))
        assert set(expected.values()) <= {None}

    def note(self, delivery: Delivery, expected: ModelEvent | None, *, goes_on: Lease | None = None) -> None:
        """Compare what was handed out with what should have been."""
        assert expected is not None
        mailbox = self.mailboxes[delivery.participant.id]
        event, state = delivery.event, delivery.states["echo"]
        assert (name_of(delivery.event), event.attempt, event.blocked) == (
            expected.name,
            expected.attempt,
            expected.blocked,
        )
        assert list(state.data.get("handled", [])) == mailbox.handled  # type: ignore[call-overload]
        assert state.version == mailbox.version
        assert (delivery.depth, [name_of(item) for item in delivery.behind]) == (mailbox.depth, mailbox.behind)
        if goes_on is None:
            assert delivery.lease not in [known.lease for known in self.deliveries]
        else:
            assert delivery.lease == goes_on
        mailbox.lease = delivery.lease
        self.deliveries.append(delivery)

    def any_delivery(self, data: st.DataObject) -> tuple[Delivery, Mailbox | None]:
        """Return one, and its mailbox if it still is held.

        Often it is one whose event another has in hand by now, or one that was brought to its end already.
        """
        if not any(self.holder(it) for it in self.deliveries):
            self.tell([*NUMBERS, *NUMBERS], NOBODY)
            self.claim_later(data.draw(WORKERS), len(NUMBERS), data.draw(DEPTHS))
        current = [it for it in self.deliveries if self.holder(it) and self.waits(it)]
        stale = [it for it in self.deliveries if not self.holder(it) and self.waits(it)]
        repeated = [it for it in self.deliveries if self.holder(it) and not self.waits(it)]
        pools = [pool for pool in (current, current, stale, repeated, self.deliveries) if pool]
        delivery = data.draw(st.sampled_from(data.draw(st.sampled_from(pools))))
        return delivery, self.holder(delivery)

    def holder(self, delivery: Delivery) -> Mailbox | None:
        return lanes.holder(self.mailboxes.values(), delivery.lease)  # type: ignore[return-value]

    def waits(self, delivery: Delivery) -> bool:
        return self.mailboxes[delivery.participant.id].find(name_of(delivery.event)) is not None

    @rule(worker=WORKERS, several=DEPTHS, numbers=st.permutations(NUMBERS), offer=OFFERS)
    def work_off(self, worker: str, several: int, numbers: list[str], offer: Offer) -> None:
        """Handle all that waits, and then let people write whose mailboxes are empty."""
        while any(mailbox.events for mailbox in self.mailboxes.values()):
            self.claim_later(worker, len(NUMBERS), several)
            for delivery in [it for it in self.deliveries if self.holder(it) and self.waits(it)]:
                self.decide_about(delivery, set(), several)
        self.tell(numbers[:2], offer)

    @rule(data=st.data(), number=st.integers(1, 4))
    def decide_often(self, data: st.DataObject, number: int) -> None:
        for _ in range(number):
            self.decide(data, set(), 1, conflict=False, last=False)

    @rule(
        data=st.data(),
        cancel=st.sets(st.sampled_from(KEYS), max_size=1),
        several=DEPTHS,
        conflict=st.sampled_from([False, False, False, True]),
        last=st.sampled_from([False, False, True]),
    )
    def decide(self, data: st.DataObject, cancel: set[str], several: int, *, conflict: bool, last: bool) -> None:
        self.decide_about(self.any_delivery(data)[0], cancel, several, conflict=conflict, last=last)

    def decide_about(
        self, delivery: Delivery, cancel: set[str], several: int, *, conflict: bool = False, last: bool = False
    ) -> None:
        person, mailbox = delivery.participant.id, self.holder(delivery)
        keys = tuple(f"{person}/{key}" for key in cancel)
        also = tuple(
            item for item in delivery.behind[: several - 1] if getattr(item.event, "dedupe_key", "") not in keys
        )
        names = [name_of(item) for item in (delivery.event, *also)]
        handled = [*self.mailboxes[person].handled, *names]
        decision = Decision(
            state=StateChange("echo", "ACTIVE", {"handled": handled}, self.mailboxes[person].version - conflict),
            say=tuple(Say(id=MessageId(self.db.new_id()), content=Text(name)) for name in names),
            cancel=keys,
        )
        decided = Decided(delivery, decision, None if last else LEASE_SECONDS, also)
        if mailbox is None:
            with pytest.raises(LeaseLostError):
                self.portal(commit, self.db, decided)
            return
        if any(event.name in names for event in mailbox.aside):
            return  # handed out again in place of a lost answer, and out of attempts by that
        there = [event for event in mailbox.events if event.name in names]
        if there and (conflict or len(there) < len(names)):
            with pytest.raises(VersionConflictError):
                self.portal(commit, self.db, decided)
            return
        following = self.portal(commit, self.db, decided)
        if there:
            mailbox.events = [it for it in mailbox.events if it.name not in names and it.key not in keys]
            mailbox.handled += names
            mailbox.version += 1
        if last:
            mailbox.let_go(self.now)
            assert following is None
            return
        mailbox.keep(self.now, orderly=True)
        mailbox.depth = delivery.depth
        expected = mailbox.hand_out()
        assert (following is None) == (expected is None)
        if following is not None:
            self.note(following, expected, goes_on=delivery.lease)

    @rule(data=st.data(), delay=st.sampled_from([0.0, 5.0]), blocked=st.sampled_from([0.0, 5.0, 40.0]))
    def fail(self, data: st.DataObject, delay: float, blocked: float) -> None:
        delivery, mailbox = self.any_delivery(data)

        def retry() -> bool:
            options = {"error": "boom", "delay": delay, "blocked": blocked, "limit": BLOCK_LIMIT}
            return self.portal(self.db.store.mailboxes.retry, delivery.lease, delivery.event.id, **options)

        if mailbox is None or not mailbox.events or mailbox.events[0].name != name_of(delivery.event):
            with pytest.raises(LeaseLostError):
                retry()
            return
        head = mailbox.events[0]
        hopeless = head.attempt >= MAX_ATTEMPTS or head.blocked + blocked >= BLOCK_LIMIT
        assert retry() == hopeless
        if hopeless:
            mailbox.set_aside()
        else:
            head.blocked += blocked
        mailbox.let_go(self.now + (0.0 if hopeless else delay))

    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        delivery, mailbox = self.any_delivery(data)
        if mailbox is None:
            with pytest.raises(LeaseLostError):
                self.portal(self.db.store.mailboxes.give_back, delivery.lease)
        else:
            self.portal(self.db.store.mailboxes.give_back, delivery.lease)
            mailbox.take_back(self.now)

    @precondition(lambda self: any(mailbox.aside for mailbox in self.mailboxes.values()))
    @rule(data=st.data(), drop=st.booleans())
    def have_aside(self, data: st.DataObject, *, drop: bool) -> None:
        """Try an event that was set aside again, or drop it."""
        store, found = self.db.store.aside, self.portal(self.db.store.aside.list, None, PageRequest(size=100)).items
        assert len(found) == self.portal(store.count) == sum(len(mailbox.aside) for mailbox in self.mailboxes.values())
        wanted = data.draw(st.sampled_from(found))
        mailbox = self.mailboxes[wanted.participant_id]
        name = wanted.payload["text" if wanted.kind == "replied" else "job_id"]
        [event] = [event for event in mailbox.aside if event.name == name]
        mailbox.aside.remove(event)
        self.portal(store.drop if drop else store.retry, wanted.id)
        if not drop:
            event.attempt, event.blocked = 0, 0.0
            mailbox.put(event, self.now)

    # ------------------------------------------------------------ leases, workers, time

    @rule(data=st.data(), number=st.integers(1, 4))
    def extend(self, data: st.DataObject, number: int) -> None:
        some = {lease.key: lease for lease in (self.any_delivery(data)[0].lease for _ in range(number))}.values()
        extension = self.portal(self.db.store.leases.extend, list(some), LEASE_SECONDS)
        held = {lease: lanes.holder(self.mailboxes.values(), lease) for lease in some}
        assert extension.lost == {lease for lease, mailbox in held.items() if mailbox is None}
        for mailbox in held.values():
            if mailbox is not None:
                mailbox.due = self.now + LEASE_SECONDS

    @rule(worker=WORKERS)
    def drain(self, worker: str) -> None:
        """Give back all that a worker has."""
        held = [mailbox for mailbox in self.mailboxes.values() if mailbox.worker == worker]
        assert self.portal(self.db.store.leases.give_back, WorkerId(worker)) == len(held)
        for mailbox in held:
            mailbox.take_back(self.now)

    @rule()
    def recover(self) -> None:
        """Release what the other one holds, which is not among the instances."""
        stale = [mailbox for mailbox in self.mailboxes.values() if mailbox.worker == OTHER]
        assert self.portal(self.db.store.recovery.release_stale_mailboxes) == len(stale)
        for mailbox in stale:
            mailbox.abandon(self.now if mailbox.events else None)

    @rule(seconds=st.sampled_from([1.0, 7.0, 31.0]))
    def pass_time(self, seconds: float) -> None:
        self.db.clock.advance(seconds)
        self.now += seconds

    # ------------------------------------------------------------ both say the same

    @invariant()
    def same_events(self) -> None:
        found: dict[tuple[str, bool], list[tuple[object, ...]]] = {}
        query = "SELECT participant_id, seq IS NULL, kind, payload, attempt FROM mailbox_events ORDER BY seq"
        for person, aside, kind, payload, attempt in self.db.rows(query):
            event = json.loads(payload) if isinstance(payload, str) else payload
            name = event["text" if kind == "replied" else "job_id"]
            found.setdefault((person, bool(aside)), []).append((name, attempt))
        for person, mailbox in self.mailboxes.items():
            expected = [(event.name, event.attempt) for event in mailbox.events]
            aside = sorted((event.name, event.attempt) for event in mailbox.aside)
            assert (found.get((person, False), []), sorted(found.get((person, True), []))) == (expected, aside)

    @invariant()
    def same_lanes(self) -> None:
        assert self.lanes("mailbox") == lanes.states(self.mailboxes.values())

    @invariant()
    def same_traces(self) -> None:
        """Compare what was said: once for each event that was handled, in their order."""
        rows = self.db.rows("SELECT participant_id, body FROM outbox_messages ORDER BY seq")
        for person, mailbox in self.mailboxes.items():
            bodies = [body for whose, body in rows if whose == person]
            texts = [(json.loads(body) if isinstance(body, str) else body)["body"] for body in bodies]
            assert texts == mailbox.handled


@pytest.fixture(autouse=True)
def few_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let poison show itself within a story."""
    monkeypatch.setattr(mailbox_events, "DEFAULT_MAX_ATTEMPTS", MAX_ATTEMPTS)


def test_mailboxes_on_sqlite(tmp_path: Path) -> None:
    """Twenty stories of fifty steps."""
    tell_on_sqlite(MailboxesBesideAModel, tmp_path, stories=20)


def test_mailboxes_on_postgres(shared_database: str) -> None:
    """The same stories."""
    tell_on_postgres(MailboxesBesideAModel, shared_database, stories=20)
