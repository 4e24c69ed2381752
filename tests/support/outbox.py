"""The outbox as it should be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from promptpipe.model.messages import AttemptState, InDoubtPolicy, MessageClass, MessageStatus, Verdict, advanced
from tests.support import lanes
from tests.support.database import RULES
from tests.support.lanes import ModelLane

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from promptpipe.model.leases import Lease
    from promptpipe.model.messages import Settlement

MAX_ATTEMPTS = 3
UNCOUNTED = {Verdict.UNSENT, Verdict.SLOW_CHANNEL, Verdict.PAUSE_CHANNEL}
ARRIVED = {AttemptState.SENT, AttemptState.DELIVERED, AttemptState.READ}
NEVER = float("-inf")


@dataclass
class ModelMessage:
    """A message. *attempts* holds the state of each, *leases* under which each was marked."""

    id: str
    person: str
    message_class: MessageClass
    policy: InDoubtPolicy
    expires: float | None
    status: MessageStatus = MessageStatus.QUEUED
    attempts: list[AttemptState] = field(default_factory=list)
    leases: list[Lease | None] = field(default_factory=list)
    uncounted: int = 0
    not_before: float | None = None
    doubt_from: float = 0.0
    doubt_until: float | None = None

    @property
    def lane(self) -> str:
        return lane_key(self.person, self.message_class)

    @property
    def exhausted(self) -> bool:
        return len(self.attempts) - self.uncounted >= MAX_ATTEMPTS

    @property
    def in_doubt(self) -> bool:
        return self.status is MessageStatus.IN_DOUBT

    def doubt(self, start: float) -> None:
        self.attempts[-1], self.status = AttemptState.IN_DOUBT, MessageStatus.IN_DOUBT
        self.doubt_from, self.doubt_until = start, start + RULES.wait

    def mark(self, lease: Lease | None) -> None:
        self.attempts.append(AttemptState.SENDING)
        self.leases.append(lease)
        self.status, self.doubt_until = MessageStatus.SENDING, None


@dataclass
class OutboxLane(ModelLane):
    """A recipient's lane, its messages in order."""

    messages: list[ModelMessage] = field(default_factory=list)


def lane_key(person: str, message_class: MessageClass) -> str:
    return f"{person}/whatsapp/{message_class.value}"


@dataclass
class Outbox:
    """What there should be. *outlives*: a request may be on its way until its vanished sender's lease is over."""

    outlives: bool
    now: float = 0.0
    paused_until: float = NEVER
    messages: dict[str, ModelMessage] = field(default_factory=dict)
    lanes: dict[str, OutboxLane] = field(default_factory=dict)

    def lane(self, person: str, message_class: MessageClass) -> OutboxLane:
        key = lane_key(person, message_class)
        return self.lanes.setdefault(key, OutboxLane(key, message_class.priority))

    def holder(self, lease: Lease) -> OutboxLane | None:
        return lanes.holder(self.lanes.values(), lease)  # type: ignore[return-value]

    # ------------------------------------------------------------ entering and leaving

    def put(self, message: ModelMessage) -> None:
        self.messages[message.id] = message
        self.enter(message)

    def enter(self, message: ModelMessage) -> None:
        lane = self.lane(message.person, message.message_class)
        lane.append(self.now)
        lane.messages.append(message)
        message.not_before = None

    def leave(self, message: ModelMessage) -> None:
        message.not_before = message.doubt_until = None
        lane = self.lanes[message.lane]
        if message in lane.messages:
            was_head = lane.messages[0] is message
            lane.messages.remove(message)
            if was_head and lane.worker is None:
                lane.set_due(self.head_due(lane))

    def head_due(self, lane: OutboxLane) -> float | None:
        if not lane.messages:
            return None
        head = lane.messages[0]
        return head.doubt_until if head.in_doubt else self.now

    def become(self, message: ModelMessage, status: MessageStatus) -> None:
        message.status = status
        if status.settled:
            self.leave(message)

    def learn(self, message: ModelMessage, n: int, state: AttemptState) -> None:
        """Note what is known of an attempt."""
        message.attempts[n - 1] = message.attempts[n - 1].merged(state)
        self.become(message, advanced(message.status, message.attempts))

    # ------------------------------------------------------------ sending

    def claim(
        self, worker: str, limit: int, held: Collection[str]
    ) -> tuple[list[ModelLane], list[ModelLane], float | None]:
        """Return the lanes that are handed out, the suspect among them, and when there is more to do."""
        postponed = [(it.not_before, it.id, it) for it in self.messages.values() if it.not_before is not None]
        for not_before, _, message in sorted(postponed):
            if not_before <= self.now:
                self.enter(message)
        claimed, suspects = lanes.claim(self.lanes.values(), self.now, worker, limit, held)
        dues = [lane.due for lane in self.lanes.values()] + [it.not_before for it in self.messages.values()]
        waits = [due - self.now for due in dues if due is not None and due > self.now]
        return claimed, suspects, min(waits, default=None)

    def next_order(self, lane: OutboxLane, *, orderly: bool) -> ModelMessage | None:
        """Mark the head of a lane that is held, and return it; release the lane when nothing is to be sent now."""
        while lane.messages:
            head = lane.messages[0]
            if head.status is MessageStatus.SENDING:
                if head.leases[-1] == lane.lease:
                    lane.keep(self.now, orderly=orderly)
                    return head
                head.doubt(self.now)
            doubt = head.doubt_until if head.in_doubt else None
            until = doubt if doubt is not None and doubt > self.now else self.paused_until
            if until > self.now:
                lane.release(until)
                return None
            if self.mark(head, lane.lease):
                lane.keep(self.now, orderly=orderly)
                return head
        lane.release(None)
        return None

    def mark(self, head: ModelMessage, lease: Lease | None) -> bool:
        """Mark a head, or settle why it does not go out."""
        if head.in_doubt and head.policy is InDoubtPolicy.HOLD:
            self.leave(head)
            return False
        expired = head.expires is not None and head.expires <= self.now
        dropped = head.in_doubt and head.policy is InDoubtPolicy.DROP
        if head.in_doubt:
            head.attempts[-1] = AttemptState.DROPPED
        if not (head.exhausted or expired or dropped):
            head.mark(lease)
            return True
        fails = head.in_doubt or head.exhausted
        self.become(head, MessageStatus.FAILED if fails else MessageStatus.EXPIRED)
        return False

    def record(
        self, message: ModelMessage, n: int, lease: Lease, settlement: Settlement, *, goes_on: bool
    ) -> ModelMessage | None:
        """Record what became of an order; return what is to be sent next in its lane."""
        lane = self.holder(lease)
        if lane is None:
            if settlement.verdict is Verdict.ACCEPTED:
                self.learn(message, n, AttemptState.SENT)
            return None
        due = self.apply(message, n, settlement)
        if due is None and goes_on:
            return self.next_order(lane, orderly=True)
        lane.release(self.head_due(lane) if due is None else due)
        return None

    def apply(self, message: ModelMessage, n: int, settlement: Settlement) -> float | None:
        """Return when the lane is due if it has to wait."""
        verdict = settlement.verdict
        if verdict is Verdict.ACCEPTED:
            self.learn(message, n, AttemptState.SENT)
        elif message.attempts[n - 1] is AttemptState.SENDING:
            return self.apply_failure(message, n, settlement)
        return None

    def apply_failure(self, message: ModelMessage, n: int, settlement: Settlement) -> float | None:
        verdict = settlement.verdict
        state = AttemptState.UNSENT if verdict is Verdict.UNSENT else AttemptState.FAILED
        if message.status is not MessageStatus.SENDING:
            message.attempts[n - 1] = AttemptState.IN_DOUBT if verdict is Verdict.DOUBTFUL else state
            return None
        if verdict is Verdict.DOUBTFUL:
            message.doubt(self.now)
            return None
        if verdict is Verdict.REFUSED or (verdict not in UNCOUNTED and message.exhausted):
            self.learn(message, n, AttemptState.FAILED)
            return None
        return self.put_back(message, n, state, settlement)

    def put_back(self, message: ModelMessage, n: int, state: AttemptState, settlement: Settlement) -> float | None:
        verdict = settlement.verdict
        message.attempts[n - 1], message.status = state, MessageStatus.QUEUED
        due = self.now + settlement.delay
        if verdict is Verdict.LATER:
            self.lanes[message.lane].messages.remove(message)
            message.not_before = due
            return None
        message.uncounted += verdict in UNCOUNTED
        if verdict is Verdict.SLOW_RECIPIENT:
            for message_class in MessageClass:
                self.lane(message.person, message_class).slow_down(due)
        elif verdict in UNCOUNTED - {Verdict.UNSENT}:
            self.paused_until = max(self.paused_until, due)
        return due

    # ------------------------------------------------------------ who vanishes, drains or starts

    def doubt_if_sending(self, lane: OutboxLane, start: float) -> bool:
        sending = bool(lane.messages) and lane.messages[0].status is MessageStatus.SENDING
        if sending:
            lane.messages[0].doubt(start)
        return sending

    def drain(self, worker: str) -> int:
        held = [lane for lane in self.lanes.values() if lane.worker == worker]
        for lane in held:
            self.doubt_if_sending(lane, self.now)
            lane.release(self.head_due(lane))
        return len(held)

    def recover(self, gone: str) -> int:
        doubts = 0
        for lane in self.lanes.values():
            if lane.worker == gone:
                request_end = max(self.now, lane.due or self.now) if self.outlives else self.now
                doubts += self.doubt_if_sending(lane, request_end)
                lane.abandon(self.head_due(lane))
        return doubts

    def restart_doubts(self) -> int:
        waiting = [it for it in self.messages.values() if it.in_doubt and it.doubt_until is not None]
        for message in waiting:
            message.doubt_until = max(message.doubt_from, self.now) + RULES.wait
            if self.lanes[message.lane].worker is None:
                self.lanes[message.lane].set_due(message.doubt_until)
        return len(waiting)

    # ------------------------------------------------------------ operators; each returns whether it is allowed

    def cancel(self, message: ModelMessage) -> bool:
        if message.status is MessageStatus.QUEUED:
            self.become(message, MessageStatus.CANCELED)
        return message.status is MessageStatus.CANCELED

    def retry(self, message: ModelMessage) -> bool:
        ended = {MessageStatus.FAILED, MessageStatus.EXPIRED, MessageStatus.CANCELED}
        if message.status not in ended or ARRIVED & set(message.attempts):
            return False
        message.status, message.uncounted = MessageStatus.QUEUED, len(message.attempts)
        if message.expires is not None and message.expires <= self.now:
            message.expires = None
        self.enter(message)
        return True

    def resend(self, message: ModelMessage) -> None:
        message.attempts[-1], message.status = AttemptState.DROPPED, MessageStatus.QUEUED
        lane = self.lanes[message.lane]
        if message not in lane.messages:
            self.enter(message)
        if lane.worker is None:
            lane.set_due(self.now)

    def states(self) -> dict[str, Sequence[object]]:
        """Return how messages are, by id."""
        return {
            it.id: (it.status.value, it.uncounted, it.not_before, [state.value for state in it.attempts])
            for it in self.messages.values()
        }
