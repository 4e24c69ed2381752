"""Bringing conversations back: response handlers that are missing, timers whose job is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.flows.conversation.lost import life_of
from promptpipe.flows.conversation.state import ConversationState
from promptpipe.flows.conversation.timers import TIMERS
from promptpipe.flows.conversation.turn import FLOW_TYPE
from promptpipe.model.errors import PromptPipeError, StoreUnavailableError
from promptpipe.recovery import ResponseHandlerRecoveryInfo, TimerRecoveryInfo

if TYPE_CHECKING:
    from promptpipe.flows.conversation.settings import ConversationSettings
    from promptpipe.flows.conversation.timers import Timer
    from promptpipe.model.ids import ParticipantId
    from promptpipe.model.recovery import LostTimer
    from promptpipe.recovery import RecoveryRegistry

PAGE = 500
"""Participants looked at in one query; memory does not grow with their number."""


class ConversationFlowRecovery:
    """`recovery.ParticipantRecoverable` of the conversation flow."""

    name = "conversation flow"
    flow_type = FLOW_TYPE

    def __init__(self, settings: ConversationSettings) -> None:
        self._settings = settings

    async def recover_state(self, registry: RecoveryRegistry) -> None:
        """See `Recoverable.recover_state`. Only participants that need repair are read."""
        registry.tally.checked = await registry.store.active(FLOW_TYPE)
        await self._recover_handlers(registry)
        for timer in TIMERS:
            await self._recover_timers(timer, registry)

    async def recover_participant(self, participant_id: ParticipantId, registry: RecoveryRegistry) -> None:
        """See `ParticipantRecoverable.recover_participant`."""
        info = ResponseHandlerRecoveryInfo(participant_id=participant_id, flow_type=FLOW_TYPE, handler_type=FLOW_TYPE)
        await registry.recover_response_handler(info)

    async def _recover_handlers(self, registry: RecoveryRegistry) -> None:
        after: ParticipantId | None = None
        while page := await registry.store.without_handler(FLOW_TYPE, after, PAGE):
            for participant_id in page:
                await self.recover_participant(participant_id, registry)
            after = page[-1]

    async def _recover_timers(self, timer: Timer, registry: RecoveryRegistry) -> None:
        after: ParticipantId | None = None
        while page := await registry.store.lost_timers(FLOW_TYPE, timer.data_key, after, PAGE):
            for lost in page:
                try:
                    await registry.recover_timer(self._info(timer, lost))
                except StoreUnavailableError:
                    raise
                except PromptPipeError as error:
                    registry.tally.fail(lost.participant_id, error)
            after = page[-1].participant_id

    def _info(self, timer: Timer, lost: LostTimer) -> TimerRecoveryInfo:
        """Return what is known of a lost timer; one that has ended is only to be forgotten."""
        life = None if lost.ended else life_of(timer, ConversationState(lost.state_data), self._settings)
        created_at, ttl = (None, None) if life is None else life
        return TimerRecoveryInfo(
            lost=lost, flow_type=FLOW_TYPE, data_key=timer.data_key, original_ttl=ttl, created_at=created_at
        )
