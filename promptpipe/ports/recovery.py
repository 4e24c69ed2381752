"""What bringing the system back needs. What `ports.store` says of its methods holds for these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from promptpipe.model.decisions import Hook
    from promptpipe.model.ids import MessageId, ParticipantId, ScheduleId
    from promptpipe.model.leases import Lease
    from promptpipe.model.listing import Page, PageRequest
    from promptpipe.model.recovery import LostTimer, RecoveryReport, Span, StuckLane


class FindingStore(Protocol):
    """Finds what is broken, and changes nothing."""

    async def active(self, flow_type: str) -> int:
        """Return how many active participants a flow has."""
        ...

    async def span(self, flow_type: str, after: str, limit: int) -> Span | None:
        """Return the next active participants of a flow after an id, at most *limit*; None when there are no more."""
        ...

    async def without_handler(self, flow_type: str, span: Span) -> Sequence[ParticipantId]:
        """Return the active participants of a flow whom no response handler serves."""
        ...

    async def lost_timers(self, flow_type: str, data_key: str, span: Span) -> Sequence[LostTimer]:
        """Return the active participants of a flow whose timer is lost.

        Their state names a job under *data_key* that neither is live nor has its event in the mailbox.
        """
        ...

    async def missing_timers(self, flow_type: str, data_key: str, waiting_key: str, span: Span) -> Sequence[LostTimer]:
        """Return the active participants of a flow whose state has something that waits for a timer, but none."""
        ...

    async def misshapen(self, flow_type: str, shapes: Mapping[str, str], span: Span) -> Mapping[str, Sequence[str]]:
        """Return the active participants of a flow whose state has keys of another JSON type than in *shapes*: which.

        The types are `object`, `array` and `string`; a key that is absent or null has any. The key of a state that is
        no object at all is empty.
        """
        ...

    async def unknown_flows(self, known: Collection[str]) -> Sequence[tuple[str, int]]:
        """Return the flows, other than *known*, that have active participants, and how many."""
        ...

    async def orphaned_handlers(self, limit: int) -> Sequence[tuple[str, str]]:
        """Return (participant, handler type) of response handlers whose participant does not exist."""
        ...

    async def stuck_lanes(self, limit: int) -> Sequence[StuckLane]:
        """Return lanes that have something in them, but are neither due nor held, or would give a place out again."""
        ...

    async def stray_messages(self, limit: int) -> Sequence[tuple[MessageId, str]]:
        """Return messages that are marked as on the wire though nobody holds their lane, each with the lane's key."""
        ...

    async def stray_schedules(self, limit: int) -> Sequence[ScheduleId]:
        """Return schedules that are not paused but have no next time."""
        ...

    async def ended_leases(self) -> Mapping[str, int]:
        """Return how much work is leased until a time that is over, by the kind of work."""
        ...


class RecoveryStore(FindingStore, Protocol):
    """Finds what is broken and repairs it. Every method can be repeated without further effect.

    A worker is gone when it is not among the instances; on SQLite, when it is not this process.
    """

    async def begin(self, seconds: float) -> Lease | None:
        """Lease recovery, which one instance does at a time; None when another does."""
        ...

    async def end(self, lease: Lease) -> None:
        """Release what `begin` gave, if it is still held."""
        ...

    async def requeue_stale_running_jobs(self) -> int:
        """Make running jobs whose worker is gone due again; return how many."""
        ...

    async def release_stale_mailboxes(self) -> int:
        """Make mailboxes whose worker is gone due again; return how many."""
        ...

    async def requeue_stale_sending_messages(self) -> Sequence[MessageId]:
        """Put messages that were on the wire when their sender vanished in doubt; return them.

        None of them is queued again: only a status or the in-doubt policy settles them.
        """
        ...

    async def restart_doubts(self) -> int:
        """Start the wait of every message in doubt anew, since statuses can arrive from now on; return how many wait.

        Nothing happens when another instance is ready: then they could arrive all the time.
        """
        ...

    async def repair_schedules(self, limit: int) -> Sequence[ScheduleId]:
        """Give schedules that are not paused but have no next time theirs; return them, at most *limit*.

        One whose rule cannot be read is paused.
        """
        ...

    async def register_hook(self, hook: Hook) -> bool:
        """Register a response handler unless the participant has it; return whether it was new."""
        ...

    async def remove_orphaned_handler(self, participant_id: str, handler_type: str) -> bool:
        """Remove a response handler whose participant does not exist; return whether it was one."""
        ...

    async def rouse_lane(self, lane: StuckLane) -> bool:
        """Make a stuck lane due, its places beyond those that are taken; return whether it was stuck."""
        ...

    async def doubt_stray_message(self, lane_key: str) -> bool:
        """Put the head of an outbox that nobody holds in doubt if it is on the wire; return whether it was."""
        ...

    async def report_lost_timer(self, timer: LostTimer, flow_type: str, data_key: str, remaining: float | None) -> bool:
        """Put a `TimerLost` event into the participant's mailbox, unless one for this timer waits there already."""
        ...

    async def save_report(self, report: RecoveryReport) -> None:
        """Keep the outcome of a recovery."""
        ...

    async def last_report(self) -> RecoveryReport | None:
        """Return the newest kept report."""
        ...

    async def reports(self, page: PageRequest) -> Page[RecoveryReport]:
        """Return kept reports, the newest first."""
        ...
