"""What packages build on that add flows, prompt generators, response handlers, kinds of jobs or recoverables.

They import from here alone: what these names mean changes with a version of PromptPipe that says so in its changelog;
where they come from may change at any time. `docs/writing-a-flow.md` walks through such a package.
"""

from __future__ import annotations

from promptpipe.flows.flow import Flow, FlowContext, PromptingFlow
from promptpipe.flows.prompts import PROMPTS, Answer, PromptGenerator, ResponseHandler
from promptpipe.model.chat import ChatMessage, Generated, Role, Tool, ToolCall
from promptpipe.model.decisions import Decision, FlowState, Hook, Say, StateChange, Wake
from promptpipe.model.errors import (
    CancelJobError,
    CorruptStateError,
    FailJobError,
    GenerationError,
    PromptPipeError,
    RefusedError,
    RetryJobError,
    SnoozeJobError,
)
from promptpipe.model.events import (
    Enrolled,
    Event,
    FlowMoved,
    FlowReset,
    MessageFailed,
    MessageSent,
    PromptOrdered,
    Replied,
    Signal,
    TimerFired,
    TimerLost,
)
from promptpipe.model.ids import JobId, MessageId, ParticipantId, ResponseId, ScheduleId
from promptpipe.model.jobs import Effects, Job, NewJob, OnConflict
from promptpipe.model.messages import Choice, Choices, Content, InDoubtPolicy, MessageClass, NewMessage, Text
from promptpipe.model.participants import Address, AddressKind, Participant, ParticipantStatus
from promptpipe.model.prompts import (
    BranchPrompt,
    ConversationPrompt,
    CustomPrompt,
    GenAiPrompt,
    Option,
    Prompt,
    PromptOrder,
    StaticPrompt,
)
from promptpipe.model.recovery import LostTimer
from promptpipe.model.recurrence import Recurrence
from promptpipe.model.retry import Backoff
from promptpipe.model.schedules import Misfire, NewSchedule
from promptpipe.ports.clock import Clock
from promptpipe.ports.extensions import ExtensionContext
from promptpipe.ports.generator import TextGenerator
from promptpipe.ports.jobs import JobKind
from promptpipe.recovery import (
    ParticipantRecoverable,
    Recoverable,
    RecoveryRegistry,
    ResponseHandlerRecoveryInfo,
    TimedFlowRecovery,
    TimerRecoveryInfo,
)

__all__ = [
    "PROMPTS",
    "Address",
    "AddressKind",
    "Answer",
    "Backoff",
    "BranchPrompt",
    "CancelJobError",
    "ChatMessage",
    "Choice",
    "Choices",
    "Clock",
    "Content",
    "ConversationPrompt",
    "CorruptStateError",
    "CustomPrompt",
    "Decision",
    "Effects",
    "Enrolled",
    "Event",
    "ExtensionContext",
    "FailJobError",
    "Flow",
    "FlowContext",
    "FlowMoved",
    "FlowReset",
    "FlowState",
    "GenAiPrompt",
    "Generated",
    "GenerationError",
    "Hook",
    "InDoubtPolicy",
    "Job",
    "JobId",
    "JobKind",
    "LostTimer",
    "MessageClass",
    "MessageFailed",
    "MessageId",
    "MessageSent",
    "Misfire",
    "NewJob",
    "NewMessage",
    "NewSchedule",
    "OnConflict",
    "Option",
    "Participant",
    "ParticipantId",
    "ParticipantRecoverable",
    "ParticipantStatus",
    "Prompt",
    "PromptGenerator",
    "PromptOrder",
    "PromptOrdered",
    "PromptPipeError",
    "PromptingFlow",
    "Recoverable",
    "RecoveryRegistry",
    "Recurrence",
    "RefusedError",
    "Replied",
    "ResponseHandler",
    "ResponseHandlerRecoveryInfo",
    "ResponseId",
    "RetryJobError",
    "Role",
    "Say",
    "ScheduleId",
    "Signal",
    "SnoozeJobError",
    "StateChange",
    "StaticPrompt",
    "Text",
    "TextGenerator",
    "TimedFlowRecovery",
    "TimerFired",
    "TimerLost",
    "TimerRecoveryInfo",
    "Tool",
    "ToolCall",
    "Wake",
]
