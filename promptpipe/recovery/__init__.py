"""Bringing components back at startup, without knowing any of them: no flow, no messaging, no store but the port."""

from promptpipe.recovery.manager import RecoveryManager
from promptpipe.recovery.registry import (
    ParticipantRecoverable,
    Recoverable,
    RecoveryRegistry,
    ResponseHandlerRecoveryInfo,
    TimerRecoveryInfo,
)

__all__ = [
    "ParticipantRecoverable",
    "Recoverable",
    "RecoveryManager",
    "RecoveryRegistry",
    "ResponseHandlerRecoveryInfo",
    "TimerRecoveryInfo",
]
