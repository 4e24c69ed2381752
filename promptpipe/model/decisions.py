"""Flow states, and decisions: all that handling one event changes, as a value that is applied in one commit."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from promptpipe.model.events import TimerFired
from promptpipe.model.messages import MessageClass, readable
from promptpipe.model.schedules import made_by

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from promptpipe.model.events import Event, StoredEvent
    from promptpipe.model.ids import JobId, MessageId, ParticipantId, ScheduleId
    from promptpipe.model.leases import Lease
    from promptpipe.model.messages import Content
    from promptpipe.model.participants import Participant
    from promptpipe.model.schedules import NewSchedule


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowState:
    """One participant's place in one flow. *version* counts its changes, from 1.

    To operators, one is shown even when its data cannot be read: a *problem* says why, and the data is empty.
    """

    participant_id: ParticipantId
    flow_type: str
    current_state: str
    data: Mapping[str, object]
    version: int
    created_at: datetime
    updated_at: datetime
    problem: str = ""


@dataclass(frozen=True, slots=True)
class StateChange:
    """A new state to save in place of the version that the flow was given."""

    flow_type: str
    current_state: str
    data: Mapping[str, object]
    from_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """A message to the participant. The flow type *awaited_by* gets an event when it was sent or failed.

    One whose *dedupe_key* a message of the last 30 days has is not said.
    """

    id: MessageId
    content: Content
    message_class: MessageClass = MessageClass.REPLY
    awaited_by: str | None = None
    expires_at: datetime | None = None
    dedupe_key: str | None = None

    @property
    def text(self) -> str:
        """What it says, as a conversation's history keeps it."""
        return readable(self.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """A timer: a job of this participant, in place of any of theirs with the same key."""

    id: JobId
    kind: str
    key: str
    at: datetime
    payload: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A registered response handler: it receives the participant's replies until it expires.

    Those that expire come first, the soonest first; of the others, the one registered last. *data* is what the handler
    needs to know of what it waits for.
    """

    participant_id: ParticipantId
    handler_type: str
    flow_type: str
    expires_at: datetime | None = None
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What handling one event changes, all of it this participant's.

    *cancel* holds dedupe keys of timers. *schedule* makes schedules, and *unschedule* ends some; what these made and is
    still to be handled ends with them. *hook* registers response handlers, each in place of any of its type, and
    *unhook* removes those of some types. With a *refusal*, which says why what an operator asked for is not done,
    nothing changes.
    """

    state: StateChange | None = None
    say: tuple[Say, ...] = ()
    wake: tuple[Wake, ...] = ()
    cancel: tuple[str, ...] = ()
    schedule: tuple[NewSchedule, ...] = ()
    unschedule: tuple[ScheduleId, ...] = ()
    hook: tuple[Hook, ...] = ()
    unhook: tuple[str, ...] = ()
    refusal: str | None = None

    def cancels(self, event: Event) -> bool:
        """Whether *event* is of a timer that this cancels, or sets anew, or of a schedule that this ends."""
        if not isinstance(event, TimerFired) or event.dedupe_key is None:
            return False
        if event.dedupe_key in self.cancel or any(wake.key == event.dedupe_key for wake in self.wake):
            return True
        return any(event.dedupe_key.startswith(made_by(schedule_id)) for schedule_id in self.unschedule)

    def goes_with(self, later: Decision) -> bool:
        """Whether one decision can change what this one and *later* change: not if one refuses, or for two flows."""
        if self.refusal is not None or later.refusal is not None:
            return False
        return self.state is None or later.state is None or self.state.flow_type == later.state.flow_type


def in_a_row(decisions: Sequence[Decision]) -> Decision:
    """Return what changes all that *decisions* change after each other, each made knowing those before it.

    Each `goes_with` those before it.
    """
    if len(decisions) == 1:
        return decisions[0]
    states = [decision.state for decision in decisions if decision.state is not None]
    wake: dict[str, list[Wake]] = {}
    cancel: dict[str, None] = {}
    schedule: dict[ScheduleId, NewSchedule] = {}
    unschedule: dict[ScheduleId, None] = {}
    hook: dict[str, Hook] = {}
    unhook: dict[str, None] = {}
    for decision in decisions:
        for key in (*decision.cancel, *(timer.key for timer in decision.wake)):
            wake.pop(key, None)
        for timer in decision.wake:
            wake.setdefault(timer.key, []).append(timer)
        cancel |= dict.fromkeys(decision.cancel)
        for schedule_id in decision.unschedule:
            schedule.pop(schedule_id, None)
            unschedule[schedule_id] = None
        schedule |= {new.id: new for new in decision.schedule}
        for handler_type in decision.unhook:
            hook.pop(handler_type, None)
            unhook[handler_type] = None
        hook |= {new.handler_type: new for new in decision.hook}
    return Decision(
        state=replace(states[-1], from_version=states[0].from_version) if states else None,
        say=tuple(said for decision in decisions for said in decision.say),
        wake=tuple(timer for timers in wake.values() for timer in timers),
        cancel=tuple(cancel),
        schedule=tuple(schedule.values()),
        unschedule=tuple(unschedule),
        hook=tuple(hook.values()),
        unhook=tuple(unhook),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The head of a mailbox, handed to the worker that holds it, with all that handling it needs.

    At most *depth* events are handed out at once: those *behind* it may be handled in the same commit. Their attempts
    are not counted, so there are none when a holder before has vanished.
    """

    lease: Lease
    event: StoredEvent
    participant: Participant
    states: Mapping[str, FlowState]
    hooks: tuple[Hook, ...]
    behind: tuple[StoredEvent, ...] = ()
    depth: int = 1

    def after(self, decision: Decision) -> Delivery | None:
        """Return the next event as *decision* about this one leaves it: with the states and handlers that there are.

        Timers that it cancels or sets anew have not fired. There is none when nothing is left.
        """
        behind = self.behind
        if decision.cancel or decision.wake or decision.unschedule:
            behind = tuple(item for item in behind if not decision.cancels(item.event))
        if not behind:
            return None
        return Delivery(
            lease=self.lease,
            event=behind[0],
            participant=self.participant,
            states=self.states if decision.state is None else _changed(self.states, decision.state),
            hooks=_changed_hooks(self.hooks, decision) if decision.hook or decision.unhook else self.hooks,
            behind=behind[1:],
            depth=self.depth,
        )


def _changed(states: Mapping[str, FlowState], change: StateChange) -> Mapping[str, FlowState]:
    state = replace(
        states[change.flow_type],
        current_state=change.current_state,
        data=change.data,
        version=change.from_version + 1,
    )
    return {**states, change.flow_type: state}


def _changed_hooks(hooks: Sequence[Hook], decision: Decision) -> tuple[Hook, ...]:
    gone = {*decision.unhook, *(hook.handler_type for hook in decision.hook)}
    left = (*decision.hook, *(hook for hook in hooks if hook.handler_type not in gone))
    return tuple(sorted(left, key=lambda hook: (hook.expires_at is None, hook.expires_at)))


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided about a delivery's event, and about some of those behind it, which are *also* handled.

    The next event of the same mailbox is wanted under a lease of *next_within* seconds; None releases the mailbox.
    """

    delivery: Delivery
    decision: Decision
    next_within: float | None
    also: tuple[StoredEvent, ...] = ()

    @property
    def events(self) -> tuple[StoredEvent, ...]:
        """The events that were handled, in their order."""
        return (self.delivery.event, *self.also)
