"""Bringing conversations back: response handlers that are missing, timers whose job is gone or was never made."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from promptpipe.flows.conversation.lost import life_of
from promptpipe.flows.conversation.state import PENDING, SHAPES, TRANSITION, ConversationState
from promptpipe.flows.conversation.timers import REMINDER, STATE_TRANSITION, TIMERS
from promptpipe.flows.conversation.turn import FLOW_TYPE
from promptpipe.model.recovery import Span
from promptpipe.recovery import ResponseHandlerRecoveryInfo, TimerRecoveryInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptpipe.flows.conversation.settings import ConversationSettings
    from promptpipe.flows.conversation.timers import Timer
    from promptpipe.model.ids import ParticipantId
    from promptpipe.model.recovery import LostTimer
    from promptpipe.recovery import RecoveryRegistry

WAITING = {REMINDER: PENDING, STATE_TRANSITION: TRANSITION}
"""What in the state waits for a timer."""


class ConversationFlowRecovery:
    """`recovery.ParticipantRecoverable` of the conversation flow."""

    name = "conversation flow"
    flow_type = FLOW_TYPE

    def __init__(self, settings: ConversationSettings) -> None:
        self._settings = settings

    async def recover_state(self, registry: RecoveryRegistry) -> None:
        """See `Recoverable.recover_state`. Only participants that need repair are read."""
        await registry.each_span(FLOW_TYPE, partial(self._recover, registry=registry))

    async def recover_participant(self, participant_id: ParticipantId, registry: RecoveryRegistry) -> None:
        """See `ParticipantRecoverable.recover_participant`."""
        await self._recover(Span.of(participant_id), registry)

    async def _recover(self, span: Span, registry: RecoveryRegistry) -> None:
        store = registry.store
        recover_handler = partial(self._recover_handler, registry=registry)
        await registry.each(await store.without_handler(FLOW_TYPE, span), recover_handler)
        misshapen = await store.misshapen(FLOW_TYPE, SHAPES, span)
        for participant_id, keys in misshapen.items():
            what = ", ".join(filter(None, keys)) or "the state"
            registry.tally.fail(participant_id, f"not what it should be: {what}")
        for timer in TIMERS:
            lost = list(await store.lost_timers(FLOW_TYPE, timer.data_key, span))
            if timer in WAITING:
                lost += await store.missing_timers(FLOW_TYPE, timer.data_key, WAITING[timer], span)
            readable = [one for one in lost if one.participant_id not in misshapen]
            await self._recover_timers(timer, readable, registry)

    async def _recover_handler(self, participant_id: ParticipantId, registry: RecoveryRegistry) -> None:
        info = ResponseHandlerRecoveryInfo(participant_id=participant_id, flow_type=FLOW_TYPE, handler_type=FLOW_TYPE)
        await registry.recover_response_handler(info)

    async def _recover_timers(self, timer: Timer, lost: Sequence[LostTimer], registry: RecoveryRegistry) -> None:
        async def recover(one: LostTimer) -> None:
            info = self._info(timer, one)
            if info is not None:
                await registry.recover_timer(info)

        await registry.each(lost, recover, lambda one: one.participant_id)

    def _info(self, timer: Timer, lost: LostTimer) -> TimerRecoveryInfo | None:
        """Return what is known of a timer: of one that has ended, that it is to be forgotten; None if none is due."""
        life = None if lost.ended else life_of(timer, ConversationState(lost.state_data), self._settings)
        if life is None and lost.job_id is None:
            return None
        created_at, ttl = life or (None, None)
        return TimerRecoveryInfo(
            lost=lost, flow_type=FLOW_TYPE, data_key=timer.data_key, original_ttl=ttl, created_at=created_at
        )
