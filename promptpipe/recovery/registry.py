"""What components are given to recover with, and what they must be to be recovered."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, TypeVar

import trio

from promptpipe.model.errors import CorruptStateError, StoreUnavailableError, described
from promptpipe.model.recovery import MAX_NAMED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from promptpipe.model.ids import ParticipantId
    from promptpipe.model.recovery import LostTimer, Span
    from promptpipe.ports.clock import Clock
    from promptpipe.ports.recovery import RecoveryStore

    TimerCallback = Callable[["TimerRecoveryInfo", float | None], Awaitable[bool]]
    HandlerCallback = Callable[["ResponseHandlerRecoveryInfo"], Awaitable[bool]]

T = TypeVar("T")

SPAN = 1000
"""Participants that are looked at together: memory does not grow with their number, and no query takes long."""

AT_ONCE = 50
"""Repairs under way at the same time."""

LONGEST_TIMER = timedelta(days=366)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerRecoveryInfo:
    """A timer that flow state names, or waits for, but no job stands for.

    *original_ttl* and *created_at* tell what is left of it; without them only the reference is cleared.
    """

    lost: LostTimer
    flow_type: str
    data_key: str
    original_ttl: timedelta | None = None
    created_at: datetime | None = None

    def due_at(self) -> datetime | None:
        """Return when it was or is due; None when there is nothing to restore.

        Raise `CorruptStateError` for a time to live that no timer can have.
        """
        if self.original_ttl is None or self.created_at is None:
            return None
        if not timedelta(0) <= self.original_ttl <= LONGEST_TIMER:
            raise CorruptStateError(f"{self.data_key}: a timer cannot run for {self.original_ttl}")
        try:
            return self.created_at + self.original_ttl
        except OverflowError as error:
            raise CorruptStateError(f"{self.data_key}: a timer cannot end so late") from error

    def remaining(self, now: datetime, forgotten: timedelta | None = None) -> float | None:
        """Return what is left of its time in seconds, never negative; None when there is nothing to restore.

        One due longer ago than *forgotten* has fired, though nothing tells so any more. Raise as `due_at`, and for a
        timer that would end further in the future than any does.
        """
        due_at = self.due_at()
        if due_at is None or (forgotten is not None and due_at + forgotten < now):
            return None
        if due_at - now > LONGEST_TIMER:
            raise CorruptStateError(f"{self.data_key}: a timer cannot end as late as {due_at.isoformat()}")
        return max(0.0, (due_at - now).total_seconds())


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHandlerRecoveryInfo:
    """A participant whom no response handler serves. Without a *ttl* the handler stays."""

    participant_id: ParticipantId
    flow_type: str
    handler_type: str
    ttl: timedelta | None = None


@dataclass(slots=True)
class Tally:
    """What one component's recovery comes to, counted as it goes. *expected* is how many there are to look at."""

    name: str = ""
    expected: int | None = None
    checked: int = 0
    restored: int = 0
    failed: int = 0
    repairs: list[tuple[str, str]] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)

    def mend(self, subject: str, finding: str) -> None:
        """Count a repair, and keep what was wrong if not too much is kept already."""
        self.restored += 1
        if len(self.repairs) < MAX_NAMED:
            self.repairs.append((subject, finding))

    def fail(self, subject: str, error: Exception | str) -> None:
        """Count a failure, and keep its reason if not too many are kept already."""
        self.failed += 1
        if len(self.failures) < MAX_NAMED:
            self.failures.append((subject, error if isinstance(error, str) else described(error)))

    def forget_failures(self) -> None:
        """Begin to count them anew, for everything is looked at again; what was restored stays so."""
        self.failed = 0
        self.failures.clear()


class Recoverable(Protocol):
    """A component that rebuilds or checks its state at startup. Recovering it again changes nothing."""

    @property
    def name(self) -> str: ...  # noqa: D102

    async def recover_state(self, registry: RecoveryRegistry) -> None:
        """Recover, counting in `registry.tally`. What fails for one participant is noted there, not raised.

        It may be called again after a failure of the store, and goes on counting then.
        """
        ...


class ParticipantRecoverable(Recoverable, Protocol):
    """A flow's recoverable: it can also recover one participant."""

    @property
    def flow_type(self) -> str: ...  # noqa: D102

    async def recover_participant(self, participant_id: ParticipantId, registry: RecoveryRegistry) -> None:
        """Recover what concerns one participant."""
        ...


class RecoveryRegistry:
    """What a component recovers with: the store, its tally, and the application's ways to restore things.

    With *look_only* nothing is changed: what would be repaired is only counted, and named. Timers that were due longer
    ago than *forgotten* have fired, though nothing tells so any more. *span* participants are looked at together, and
    *progress* is called after each such span, and now and then.
    """

    def __init__(
        self,
        store: RecoveryStore,
        clock: Clock,
        *,
        forgotten: timedelta | None = None,
        look_only: bool = False,
        span: int = SPAN,
        progress: Callable[[Tally], None] = lambda _: None,
    ) -> None:
        self.store = store
        self.tally = Tally()
        self.look_only = look_only
        self._clock = clock
        self._forgotten = forgotten
        self._span = span
        self._progress = progress
        self._timer_recovery: TimerCallback = _unable
        self._handler_recovery: HandlerCallback = _unable

    def register_timer_recovery(self, callback: TimerCallback) -> None:
        """Let *callback* restore a timer with what is left of its time in seconds; None: only clear the reference.

        It returns whether it did anything.
        """
        self._timer_recovery = callback

    def register_handler_recovery(self, callback: HandlerCallback) -> None:
        """Let *callback* restore response handlers; it returns whether it did anything."""
        self._handler_recovery = callback

    def for_component(self, name: str) -> RecoveryRegistry:
        """Return a registry with the same callbacks and a tally of its own."""
        registry = copy(self)
        registry.tally = Tally(name)
        return registry

    async def each_span(self, flow_type: str, recover: Callable[[Span], Awaitable[None]]) -> None:
        """Recover a flow's active participants, some at a time; these count as checked once that is done."""
        self.tally.expected, self.tally.checked = await self.store.active(flow_type), 0
        after = ""
        while span := await self.store.span(flow_type, after, self._span):
            await recover(span)
            self.tally.checked += span.count
            self._progress(self.tally)
            after = span.last

    async def each(
        self, items: Sequence[T], recover: Callable[[T], Awaitable[None]], name: Callable[[T], str] = str
    ) -> None:
        """Recover *items*, several at a time. One that fails is noted under its name, and the others are recovered.

        Raise `StoreUnavailableError`.
        """
        unavailable: list[StoreUnavailableError] = []

        async def attempt(item: T) -> None:
            try:
                await recover(item)
            except StoreUnavailableError as error:
                unavailable.append(error)
            except Exception as error:  # noqa: BLE001  whatever it is, it concerns one item
                self.tally.fail(name(item), error)

        for start in range(0, len(items), AT_ONCE):
            async with trio.open_nursery() as nursery:
                for item in items[start : start + AT_ONCE]:
                    nursery.start_soon(attempt, item)
            if unavailable:
                raise unavailable[0]
            self._progress(self.tally)

    async def mend(self, subject: str, finding: str, repair: Callable[[], Awaitable[bool]]) -> None:
        """Repair what is wrong with *subject*, and count that if *repair* did anything; or only count it."""
        if self.look_only or await repair():
            self.tally.mend(subject, finding)

    async def recover_timer(self, info: TimerRecoveryInfo) -> None:
        """Make sure that exactly one live job will stand for a timer that lost its own; raise `CorruptStateError`."""
        remaining = info.remaining(self._clock.now(), self._forgotten)
        missing = "waits for a timer that is not there" if info.lost.job_id is None else "names a job that is gone"
        await self.mend(
            info.lost.participant_id,
            f"{info.data_key}: {missing}",
            lambda: self._timer_recovery(info, remaining),
        )

    async def recover_response_handler(self, info: ResponseHandlerRecoveryInfo) -> None:
        """Make sure that a participant's replies are handled."""
        finding = f"no response handler of the flow {info.flow_type}"
        await self.mend(info.participant_id, finding, lambda: self._handler_recovery(info))


async def _unable(*_: object) -> bool:
    """Restore nothing, where nobody has registered a way to."""
    await trio.lowlevel.checkpoint()
    return False
