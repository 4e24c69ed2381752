"""Our values as messages, and messages as our values."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from promptpipe.model.errors import InvalidArgumentError
from promptpipe.model.messages import content_kind, readable
from promptpipe.model.participants import AddressKind
from promptpipe.model.prompts import (
    BranchPrompt,
    ConversationPrompt,
    CustomPrompt,
    GenAiPrompt,
    Option,
    Prompt,
    StaticPrompt,
    prompt_in,
)
from promptpipe.model.text import storable_json
from promptpipe.rpc.pb.google.protobuf import Struct
from promptpipe.rpc.pb.promptpipe import v1

if TYPE_CHECKING:
    from collections.abc import Mapping
    from enum import Enum, IntEnum

    from promptpipe.model.decisions import FlowState
    from promptpipe.model.events import EventAside
    from promptpipe.model.history import Receipt, Response
    from promptpipe.model.jobs import Job, QueueStats
    from promptpipe.model.messages import OutboxMessage
    from promptpipe.model.participants import Participant
    from promptpipe.model.recovery import RecoveryReport
    from promptpipe.model.schedules import Schedule

E = TypeVar("E", bound="Enum")

MAX_EXACT = 2**53
"""Up to here every whole number is a double, which is all that a `Struct` has."""


def enum_value(field: str, value: IntEnum | None, kind: type[E]) -> E | None:
    """Return our value for a message's enum *value*; None when it is absent or unspecified."""
    if value is None or value == 0:
        return None
    try:
        return kind[value.name]
    except KeyError:
        names = ", ".join(member.name for member in kind)
        raise InvalidArgumentError(field, f"must be one of: {names}") from None


def json_object(field: str, value: Struct | None) -> dict[str, object]:
    """Return a `Struct` as JSON. Whole numbers, which travel as doubles, are whole numbers again."""
    try:
        return {} if value is None else {key: _json(item) for key, item in value.to_dict().items()}
    except (ValueError, RecursionError):
        raise InvalidArgumentError(field, "must be a JSON object whose values are all set") from None


def _json(value: object) -> object:
    match value:
        case float() if value.is_integer() and abs(value) <= MAX_EXACT:
            return int(value)
        case list():
            return [_json(item) for item in value]
        case dict():
            return {key: _json(item) for key, item in value.items()}
    return value


def struct(value: Mapping[str, object]) -> Struct:
    """Return JSON as a `Struct`."""
    return Struct.from_dict(dict(value))


def participant(value: Participant) -> v1.Participant:
    """Return a participant's message."""
    phones = [address.value for address in value.addresses if address.kind is AddressKind.PHONE]
    return v1.Participant(
        id=value.id,
        status=v1.ParticipantStatus[value.status.name],
        phone_number=phones[0] if phones else "",
        channel=value.channel,
        addresses=[
            v1.ParticipantAddress(channel=address.channel, kind=address.kind.value, value=address.value)
            for address in value.addresses
        ],
        name=value.name or "",
        gender=value.gender or "",
        ethnicity=value.ethnicity or "",
        background=value.background or "",
        timezone=value.timezone or "",
        created_at=value.created_at,
        updated_at=value.updated_at,
    )


def job(value: Job) -> v1.Job:
    """Return a job's message."""
    return v1.Job(
        id=value.id,
        kind=value.kind,
        queue=value.queue,
        status=v1.JobStatus[value.status.name],
        run_at=value.run_at,
        attempt=value.attempt,
        max_attempts=value.max_attempts,
        payload=struct(value.payload),
        dedupe_key=value.dedupe_key or "",
        last_error=value.last_error or "",
        worker=value.worker or "",
        created_at=value.created_at,
        updated_at=value.updated_at,
        finished_at=value.finished_at,
        priority=value.priority,
        participant_id=value.participant_id or "",
    )


def queue(value: QueueStats) -> v1.GetJobStatsResponseQueue:
    """Return a queue's message."""
    return v1.GetJobStatsResponseQueue(
        name=value.name,
        paused=value.paused,
        scheduled=value.scheduled,
        ready=value.ready,
        running=value.running,
        failed=value.failed,
        lag=timedelta(seconds=value.lag),
        concurrency=value.concurrency,
    )


def message(value: OutboxMessage) -> v1.OutboxMessage:
    """Return an outgoing message's message."""
    policy = value.in_doubt_policy
    return v1.OutboxMessage(
        id=value.id,
        participant_id=value.participant_id,
        recipient=value.recipient.value,
        channel=value.channel,
        kind=content_kind(value.content),
        status=v1.OutboxMessageStatus[value.status.name],
        attempts=value.attempts,
        provider_message_id=value.provider_message_id or "",
        last_error=value.last_error or "",
        created_at=value.created_at,
        sent_at=value.sent_at,
        delivered_at=value.delivered_at,
        read_at=value.read_at,
        text=readable(value.content),
        dedupe_key=value.dedupe_key or "",
        expires_at=value.expires_at,
        in_doubt_policy=v1.OutboxMessageInDoubtPolicy[policy.name if policy else "IN_DOUBT_POLICY_UNSPECIFIED"],
    )


def prompt(value: Prompt) -> v1.Prompt:
    """Return a prompt's message."""
    match value:
        case StaticPrompt(body=body):
            return v1.Prompt(static=v1.PromptStatic(body=body))
        case GenAiPrompt(system_prompt=system, user_prompt=user):
            return v1.Prompt(genai=v1.PromptGenAi(system_prompt=system, user_prompt=user))
        case BranchPrompt(body=body, options=options):
            choices = [v1.PromptOption(label=option.label, body=option.body) for option in options]
            return v1.Prompt(branch=v1.PromptBranch(body=body, options=choices))
        case ConversationPrompt():
            return v1.Prompt(conversation=v1.PromptConversation())
        case CustomPrompt(generator=generator, parameters=parameters):
            return v1.Prompt(custom=v1.PromptCustom(generator=generator, parameters=struct(parameters)))


def as_prompt(message: v1.Prompt) -> Prompt:
    """Return what a prompt's message means, of which exactly one kind is set."""
    if message.static is not None:
        return StaticPrompt(message.static.body)
    if message.genai is not None:
        return GenAiPrompt(message.genai.system_prompt, message.genai.user_prompt)
    if message.branch is not None:
        options = tuple(Option(option.label, option.body) for option in message.branch.options)
        return BranchPrompt(message.branch.body, options)
    if message.custom is not None:
        return CustomPrompt(
            message.custom.generator, json_object("prompt.custom.parameters", message.custom.parameters)
        )
    return ConversationPrompt()


def schedule(value: Schedule) -> v1.Schedule:
    """Return a schedule's message."""
    known, rule = prompt_in(value.payload), value.recurrence
    by_fields = v1.ScheduleFields(
        minute=rule.minute, hour=rule.hour, day=rule.day, month=rule.month, weekday=rule.weekday
    )
    return v1.Schedule(
        id=value.id,
        participant_id=value.participant_id or "",
        prompt=None if known is None else prompt(known),
        fields=by_fields if rule.cron is None else None,
        cron=rule.cron,
        timezone=rule.zone,
        misfire=v1.ScheduleMisfire[value.misfire.name],
        paused=value.paused,
        version=value.version,
        next_at=value.next_at,
        last_at=value.last_at,
        created_at=value.created_at,
    )


def response(value: Response) -> v1.Response:
    """Return a response's message."""
    return v1.Response(
        id=value.id,
        participant_id=value.participant_id or "",
        channel=value.channel,
        message_id=value.message_id,
        sender=value.sender,
        type=value.type,
        text=value.text,
        payload=_raw(value.raw),
        provider_time=value.provider_time,
        received_at=value.received_at,
        processed_at=value.processed_at,
    )


def _raw(raw: bytes) -> Struct | None:
    """Return a provider's update as a `Struct`; None when it is no JSON object."""
    try:
        update = storable_json(json.loads(raw))
        return struct(update) if isinstance(update, dict) else None
    except (ValueError, RecursionError, OverflowError):
        return None


def receipt(value: Receipt) -> v1.Receipt:
    """Return a delivery status's message."""
    return v1.Receipt(
        message_id=value.message_id or "",
        provider_message_id=value.provider_message_id,
        status=v1.OutboxMessageStatus[value.status.name],
        provider_time=value.provider_time,
        received_at=value.received_at,
        error=value.error or "",
    )


def flow_state(value: FlowState) -> v1.FlowState:
    """Return a flow state's message."""
    return v1.FlowState(
        participant_id=value.participant_id,
        flow_type=value.flow_type,
        current_state=value.current_state,
        state_data=struct(value.data),
        version=value.version,
        created_at=value.created_at,
        updated_at=value.updated_at,
        problem=value.problem,
    )


def event_aside(value: EventAside) -> v1.EventAside:
    """Return the message of an event that was set aside."""
    return v1.EventAside(
        id=value.id,
        participant_id=value.participant_id,
        kind=value.kind,
        payload=struct(value.payload),
        attempts=value.attempts,
        last_error=value.last_error,
        created_at=value.created_at,
    )


def report(value: RecoveryReport) -> v1.RecoveryReport:
    """Return a recovery report's message."""
    return v1.RecoveryReport(
        started_at=value.started_at,
        finished_at=value.finished_at,
        components=[
            v1.RecoveryReportComponent(
                name=component.name,
                checked=component.checked,
                restored=component.restored,
                failed=component.failed,
                failures=[
                    v1.RecoveryReportFailure(subject=subject, reason=reason) for subject, reason in component.failures
                ],
                duration=timedelta(seconds=component.seconds),
                repairs=[
                    v1.RecoveryReportRepair(subject=subject, finding=finding) for subject, finding in component.repairs
                ],
            )
            for component in value.components
        ],
    )
