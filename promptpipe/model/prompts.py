"""Prompts: what is sent now, or what a schedule says, and the orders to do so."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, TypeGuard

from promptpipe.model.decisions import Say
from promptpipe.model.errors import FlowError
from promptpipe.model.events import PromptOrdered, TimerFired
from promptpipe.model.ids import MessageId
from promptpipe.model.messages import MessageClass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from promptpipe.model.events import Event
    from promptpipe.model.messages import Content

SCHEDULED_PROMPT = "scheduled_prompt"
"""The kind of the jobs of schedules that prompt."""


@dataclass(frozen=True, slots=True)
class StaticPrompt:
    """A fixed text."""

    kind: ClassVar[str] = "static"
    body: str


@dataclass(frozen=True, slots=True)
class GenAiPrompt:
    """A text that a language model writes: what it is to be, and what it is asked."""

    kind: ClassVar[str] = "genai"
    system_prompt: str
    user_prompt: str


@dataclass(frozen=True, slots=True)
class Option:
    """Something to choose, and what is said when it was chosen."""

    label: str
    body: str


@dataclass(frozen=True, slots=True)
class BranchPrompt:
    """A question with choices, each with an answer of its own."""

    kind: ClassVar[str] = "branch"
    body: str
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class ConversationPrompt:
    """Whatever the participant's flow has to say."""

    kind: ClassVar[str] = "conversation"


@dataclass(frozen=True, slots=True)
class CustomPrompt:
    """What a registered generator makes of *parameters*."""

    kind: ClassVar[str] = "custom"
    generator: str
    parameters: Mapping[str, object] = field(default_factory=dict)


Prompt = StaticPrompt | GenAiPrompt | BranchPrompt | ConversationPrompt | CustomPrompt


def prompt_payload(prompt: Prompt) -> dict[str, object]:
    """Return *prompt* as a JSON object."""
    match prompt:
        case StaticPrompt(body=body):
            return {"prompt": prompt.kind, "body": body}
        case GenAiPrompt(system_prompt=system, user_prompt=user):
            return {"prompt": prompt.kind, "system_prompt": system, "user_prompt": user}
        case BranchPrompt(body=body, options=options):
            choices = [{"label": option.label, "body": option.body} for option in options]
            return {"prompt": prompt.kind, "body": body, "options": choices}
        case ConversationPrompt():
            return {"prompt": prompt.kind}
        case CustomPrompt(generator=generator, parameters=parameters):
            return {"prompt": prompt.kind, "generator": generator, "parameters": dict(parameters)}


def prompt_in(payload: Mapping[str, object]) -> Prompt | None:
    """Return the prompt that `prompt_payload` made *payload* from, whatever else is in it; None when there is none."""
    match payload:
        case {"prompt": StaticPrompt.kind, "body": str(body)}:
            return StaticPrompt(body)
        case {"prompt": GenAiPrompt.kind, "system_prompt": str(system), "user_prompt": str(user)}:
            return GenAiPrompt(system, user)
        case {"prompt": BranchPrompt.kind, "body": str(body), "options": [*options]}:
            read = tuple(option for item in options if (option := _option(item)) is not None)
            return BranchPrompt(body, read) if len(read) == len(options) else None
        case {"prompt": ConversationPrompt.kind}:
            return ConversationPrompt()
        case {"prompt": CustomPrompt.kind, "generator": str(generator), "parameters": dict(parameters)}:
            return CustomPrompt(generator, parameters)
    return None


def _option(data: object) -> Option | None:
    match data:
        case {"label": str(label), "body": str(body)}:
            return Option(label, body)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptOrder:
    """That a prompt is to be sent to a participant now, as the message *message_id*."""

    prompt: Prompt
    message_id: MessageId
    scheduled: bool = False
    expires_at: datetime | None = None
    dedupe_key: str | None = None

    def say(self, content: Content, awaited_by: str | None = None) -> Say:
        """Return the message that carries it out."""
        return Say(
            id=self.message_id,
            content=content,
            message_class=MessageClass.BROADCAST,
            awaited_by=awaited_by,
            expires_at=self.expires_at,
            dedupe_key=self.dedupe_key,
        )


def is_prompt(event: Event) -> TypeGuard[PromptOrdered | TimerFired]:
    """Whether a prompt is what *event* asks for."""
    return isinstance(event, PromptOrdered) or (isinstance(event, TimerFired) and event.job_kind == SCHEDULED_PROMPT)


def order_of(event: PromptOrdered | TimerFired, new_id: Callable[[], str]) -> PromptOrder:
    """Return the order in an event; raise `FlowError` when it has no prompt that is known here."""
    payload = event.payload if isinstance(event, TimerFired) else event.prompt
    prompt = prompt_in(payload)
    if prompt is None:
        raise FlowError("what was to be prompted is nothing that this version knows")
    if not isinstance(event, TimerFired):
        return PromptOrder(prompt=prompt, message_id=event.message_id, dedupe_key=event.dedupe_key)
    try:
        expires_at = datetime.fromisoformat(str(payload["expires_at"])) if "expires_at" in payload else None
    except ValueError as error:
        raise FlowError(f"a scheduled prompt is malformed: {error}") from error
    return PromptOrder(prompt=prompt, message_id=MessageId(new_id()), scheduled=True, expires_at=expires_at)
