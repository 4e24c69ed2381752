"""The services' methods: a message in, a use case called, a message out. No rule of the business is here."""

from __future__ import annotations

from promptpipe.rpc.handlers.flows import FlowHandlers
from promptpipe.rpc.handlers.history import HistoryHandlers
from promptpipe.rpc.handlers.jobs import JobHandlers
from promptpipe.rpc.handlers.outbox import OutboxHandlers
from promptpipe.rpc.handlers.participants import ParticipantHandlers
from promptpipe.rpc.handlers.prompts import PromptHandlers
from promptpipe.rpc.handlers.recovery import RecoveryHandlers

__all__ = [
    "FlowHandlers",
    "HistoryHandlers",
    "JobHandlers",
    "OutboxHandlers",
    "ParticipantHandlers",
    "PromptHandlers",
    "RecoveryHandlers",
]
