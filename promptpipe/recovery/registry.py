"""What components are given to recover with, and what they must be to be recovered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from promptpipe.model.errors import described
from promptpipe.model.recovery import MAX_FAILURES_KEPT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime, timedelta

    from promptpipe.model.ids import ParticipantId
    from promptpipe.model.recovery import LostTimer
    from promptpipe.ports.store import RecoveryStore

    TimerCallback = Callable[["TimerRecoveryInfo"], Awaitable[bool]]
    HandlerCallback = Callable[["ResponseHandlerRecoveryInfo"], Awaitable[bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerRecoveryInfo:
    """A timer that flow state names but no job stands for.

    *original_ttl* and *created_at* tell what is left of it; without them only the reference is cleared.
    """

    lost: LostTimer
    flow_type: str
    data_key: str
    original_ttl: timedelta | None = None
    created_at: datetime | None = None

    def remaining(self, now: datetime) -> float | None:
        """Return what is left of its time in seconds, never negative; None when there is nothing to restore."""
        if self.original_ttl is None or self.created_at is None:
            return None
        return max(0.0, (self.created_at + self.original_ttl - now).total_seconds())


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHandlerRecoveryInfo:
    """A participant whom no response handler serves. Without a *ttl* the handler stays."""

    participant_id: ParticipantId
    flow_type: str
    handler_type: str
    ttl: timedelta | None = None


@dataclass(slots=True)
class Tally:
    """What one component's recovery comes to, counted as it goes."""

    checked: int = 0
    restored: int = 0
    failed: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)

    def fail(self, what: str, error: Exception) -> None:
        """Count a failure, and keep its reason if not too many are kept already."""
        self.failed += 1
        if len(self.failures) < MAX_FAILURES_KEPT:
            self.failures.append((what, described(error)))


class Recoverable(Protocol):
    """A component that rebuilds or checks its state at startup. Recovering it again changes nothing."""

    @property
    def name(self) -> str: ...  # noqa: D102

    async def recover_state(self, registry: RecoveryRegistry) -> None:
        """Recover, counting in `registry.tally`. What fails for one participant is noted there, not raised."""
        ...


class ParticipantRecoverable(Recoverable, Protocol):
    """A flow's recoverable: it can also recover one participant."""

    @property
    def flow_type(self) -> str: ...  # noqa: D102

    async def recover_participant(self, participant_id: ParticipantId, registry: RecoveryRegistry) -> None:
        """Recover what concerns one participant."""
        ...


class RecoveryRegistry:
    """What a component recovers with: the store, its tally, and the application's ways to restore things."""

    def __init__(self, store: RecoveryStore) -> None:
        self.store = store
        self.tally = Tally()
        self._timer_recovery: TimerCallback | None = None
        self._handler_recovery: HandlerCallback | None = None

    def register_timer_recovery(self, callback: TimerCallback) -> None:
        """Let *callback* restore timers; it returns whether it did anything."""
        self._timer_recovery = callback

    def register_handler_recovery(self, callback: HandlerCallback) -> None:
        """Let *callback* restore response handlers; it returns whether it did anything."""
        self._handler_recovery = callback

    def for_component(self) -> RecoveryRegistry:
        """Return a registry with the same callbacks and a tally of its own."""
        registry = RecoveryRegistry(self.store)
        registry._timer_recovery = self._timer_recovery
        registry._handler_recovery = self._handler_recovery
        return registry

    async def recover_timer(self, info: TimerRecoveryInfo) -> None:
        """Make sure that exactly one live job will stand for a timer that lost its own."""
        if self._timer_recovery is not None:
            self.tally.restored += await self._timer_recovery(info)

    async def recover_response_handler(self, info: ResponseHandlerRecoveryInfo) -> None:
        """Make sure that a participant's replies are handled."""
        if self._handler_recovery is not None:
            self.tally.restored += await self._handler_recovery(info)
