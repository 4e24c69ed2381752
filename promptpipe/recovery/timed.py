"""Bringing back a flow whose state says when its timers are due: enough for most flows."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from promptpipe.model.recovery import Span
from promptpipe.recovery.registry import ResponseHandlerRecoveryInfo, TimerRecoveryInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from promptpipe.model.ids import ParticipantId
    from promptpipe.model.recovery import LostTimer
    from promptpipe.recovery.registry import RecoveryRegistry


class TimedFlowRecovery:
    """`ParticipantRecoverable`: gives participants of a flow their response handler back, and timers whose job is gone.

    *timers* holds the keys of the state that name jobs, each with what returns, by the state, when that timer is due;
    None for one that is not wanted any more. Whatever that raises is reported as that participant's failure.
    """

    def __init__(
        self, flow_type: str, handler_type: str, timers: Mapping[str, Callable[[Mapping[str, object]], datetime | None]]
    ) -> None:
        self.name = f"{flow_type} flow"
        self.flow_type = flow_type
        self._handler_type = handler_type
        self._timers = timers

    async def recover_state(self, registry: RecoveryRegistry) -> None:
        """See `Recoverable.recover_state`. Only participants that need repair are read."""
        await registry.each_span(self.flow_type, partial(self._recover, registry=registry))

    async def recover_participant(self, participant_id: ParticipantId, registry: RecoveryRegistry) -> None:
        """See `ParticipantRecoverable.recover_participant`."""
        await self._recover(Span.of(participant_id), registry)

    async def _recover(self, span: Span, registry: RecoveryRegistry) -> None:
        unserved = await registry.store.without_handler(self.flow_type, span)
        await registry.each(unserved, partial(self._recover_handler, registry=registry))
        for data_key in self._timers:
            lost = await registry.store.lost_timers(self.flow_type, data_key, span)
            recover = partial(self._recover_timer, data_key=data_key, registry=registry)
            await registry.each(lost, recover, lambda timer: timer.participant_id)

    async def _recover_handler(self, participant_id: ParticipantId, registry: RecoveryRegistry) -> None:
        info = ResponseHandlerRecoveryInfo(
            participant_id=participant_id, flow_type=self.flow_type, handler_type=self._handler_type
        )
        await registry.recover_response_handler(info)

    async def _recover_timer(self, lost: LostTimer, data_key: str, registry: RecoveryRegistry) -> None:
        due_at = None if lost.ended else self._timers[data_key](lost.state_data)
        info = TimerRecoveryInfo(
            lost=lost,
            flow_type=self.flow_type,
            data_key=data_key,
            original_ttl=None if due_at is None else timedelta(0),
            created_at=due_at,
        )
        await registry.recover_timer(info)
