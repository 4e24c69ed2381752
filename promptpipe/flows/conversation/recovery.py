"""Bringing conversations back: response handlers that are missing, timers whose job is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.flows.conversation.flow import FLOW_TYPE
from promptpipe.flows.conversation.state import REMINDER_TIMER, ConversationState
from promptpipe.model.errors import PromptPipeError, StoreUnavailableError
from promptpipe.recovery import ResponseHandlerRecoveryInfo, TimerRecoveryInfo

if TYPE_CHECKING:
    from promptpipe.model.ids import ParticipantId
    from promptpipe.model.recovery import LostTimer
    from promptpipe.recovery import RecoveryRegistry

PAGE = 500
"""Participants looked at in one query; memory does not grow with their number."""


class ConversationFlowRecovery:
    """`recovery.ParticipantRecoverable` of the conversation flow."""

    name = "conversation flow"
    flow_type = FLOW_TYPE

    async def recover_state(self, registry: RecoveryRegistry) -> None:
        """See `Recoverable.recover_state`. Only participants that need repair are read."""
        registry.tally.checked = await registry.store.active(FLOW_TYPE)
        await self._recover_handlers(registry)
        await self._recover_timers(registry)

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

    async def _recover_timers(self, registry: RecoveryRegistry) -> None:
        after: ParticipantId | None = None
        while page := await registry.store.lost_timers(FLOW_TYPE, REMINDER_TIMER, after, PAGE):
            for lost in page:
                try:
                    await registry.recover_timer(_reminder_info(lost))
                except StoreUnavailableError:
                    raise
                except PromptPipeError as error:
                    registry.tally.fail(lost.participant_id, error)
            after = page[-1].participant_id


def _reminder_info(lost: LostTimer) -> TimerRecoveryInfo:
    """Return what is known of a lost reminder; one that has ended is only to be forgotten."""
    pending = None if lost.ended else ConversationState(lost.state_data).pending
    if pending is None or pending.sent_at is None or pending.reminder_due_at is None:
        return TimerRecoveryInfo(lost=lost, flow_type=FLOW_TYPE, data_key=REMINDER_TIMER)
    return TimerRecoveryInfo(
        lost=lost,
        flow_type=FLOW_TYPE,
        data_key=REMINDER_TIMER,
        original_ttl=pending.reminder_due_at - pending.sent_at,
        created_at=pending.sent_at,
    )
