"""Bringing components back at startup, without knowing any of them: no flow, no messaging, no store but the port."""

from promptpipe.recovery.healing import FlowsRecovery, HandlersRecovery, LanesRecovery, MessagesRecovery
from promptpipe.recovery.manager import RecoveryManager
from promptpipe.recovery.registry import (
    ParticipantRecoverable,
    Recoverable,
    RecoveryRegistry,
    ResponseHandlerRecoveryInfo,
    Tally,
    TimerRecoveryInfo,
)
from promptpipe.recovery.timed import TimedFlowRecovery

__all__ = [
    "FlowsRecovery",
    "HandlersRecovery",
    "LanesRecovery",
    "MessagesRecovery",
    "ParticipantRecoverable",
    "Recoverable",
    "RecoveryManager",
    "RecoveryRegistry",
    "ResponseHandlerRecoveryInfo",
    "Tally",
    "TimedFlowRecovery",
    "TimerRecoveryInfo",
]
