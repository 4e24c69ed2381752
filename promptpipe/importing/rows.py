"""Old rows as what they are here, each by itself. Every function raises `UnreadableError`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from promptpipe.flows.conversation.timers import BY_KIND, REMINDER
from promptpipe.flows.conversation.turn import FLOW_TYPE
from promptpipe.flows.prompts.handler import PROMPTS, WAITS_FOR
from promptpipe.importing.ids import imported_id
from promptpipe.importing.reading import (
    UnreadableError,
    as_instant,
    as_json,
    given,
    instant,
    json_object,
    name_in,
    text,
    whole,
)
from promptpipe.model.decisions import Hook
from promptpipe.model.history import Receipt, Response
from promptpipe.model.ids import JobId, MessageId, ParticipantId, ResponseId
from promptpipe.model.importing import ImportedMessage, ImportedReceipt, ImportedResponse, InboundMark
from promptpipe.model.jobs import DEFAULT_PRIORITY, DEFAULT_QUEUE, Job, JobStatus
from promptpipe.model.messages import MAX_TEXT, InDoubtPolicy, MessageClass, MessageStatus, OutboxMessage, Text
from promptpipe.model.participants import Address, AddressKind, Participant, ParticipantStatus, e164
from promptpipe.model.prompts import prompt_in
from promptpipe.model.retry import DEFAULT_MAX_ATTEMPTS
from promptpipe.model.text import shortened

if TYPE_CHECKING:
    from datetime import datetime
    from enum import Enum
    from typing import TypeVar

    from promptpipe.importing.reading import OldRow

    E = TypeVar("E", bound=Enum)

LONGEST = {"name": 200, "gender": 200, "ethnicity": 200, "background": 4000, "timezone": 100}
MAX_ERROR = 2000

NOT_KNOWN_HERE = "imported: there is no kind of job by this name"
CONVERSATION_HOOK = "conversation"
IN_DOUBT = "imported: it was being sent when the first PromptPipe was stopped"

_STATUSES = {
    "queued": MessageStatus.QUEUED,
    "sending": MessageStatus.IN_DOUBT,
    "sent": MessageStatus.SENT,
    "failed": MessageStatus.FAILED,
    "canceled": MessageStatus.CANCELED,
}
_BROADCASTS = {"prompt", "scheduled_prompt", "daily_prompt", "intensity_poll"}
"""Kinds of messages that come unasked; all others are replies."""


def participant_id(row: OldRow) -> ParticipantId:
    """Return the id of the participant in a row of theirs."""
    return ParticipantId(imported_id(instant(row, "created_at"), "conversation_participants", text(row, "id")))


def number_of(row: OldRow) -> str:
    """Return the phone number in a row of a participant, with its `+`."""
    number = e164(text(row, "phone_number"))
    if number is None:
        raise UnreadableError("phone_number is no phone number in international form")
    return number


def participant_of(row: OldRow, channel: str) -> Participant:
    """Return the participant in a row."""
    about = {
        name: None if (value := given(row, name)) is None else shortened(value, most) for name, most in LONGEST.items()
    }
    created_at = instant(row, "created_at")
    return Participant(
        id=participant_id(row),
        status=_among(ParticipantStatus, text(row, "status"), "status"),
        channel=channel,
        addresses=(Address(channel, AddressKind.PHONE, number_of(row)),),
        created_at=created_at,
        updated_at=max(created_at, instant(row, "updated_at")),
        **about,
    )


def _among(kind: type[E], value: str, name: str) -> E:
    try:
        return kind(value.strip().lower())
    except ValueError:
        raise UnreadableError(f"{name} is none that there is") from None


def job_id(row: OldRow) -> JobId:
    """Return the id of the job in a row."""
    return JobId(imported_id(instant(row, "created_at"), "jobs", text(row, "id")))


def owner_of_job(row: OldRow) -> str | None:
    """Return the old id of the participant whose timer a job is; None for any other job."""
    if text(row, "kind") not in BY_KIND:
        return None
    return _string(json_object(row, "payload_json"), "participant_id", "payload_json")


def timer_job(row: OldRow, old_id: str, owner: ParticipantId) -> Job:
    """Return the timer in a row of a job; *old_id* is its participant's old id, *owner* the new one."""
    timer = BY_KIND[text(row, "kind")]
    job = _job(row, _among(JobStatus, text(row, "status"), "status"))
    if job["status"] is JobStatus.QUEUED and given(row, "dedupe_key") != f"{timer.key_name}:{old_id}":
        raise UnreadableError("dedupe_key is not that of its participant's timer")
    payload: dict[str, object] = {}
    if timer is REMINDER:
        said = _string(json_object(row, "payload_json"), "expected_sent_at", "payload_json")
        payload = {"sentAt": as_instant(said, "payload_json.expected_sent_at").isoformat()}
    return Job(**job, payload=payload, dedupe_key=timer.key(owner), participant_id=owner)  # type: ignore[arg-type]


def other_job(row: OldRow) -> Job:
    """Return a job of a kind that is not here: ended, for nobody would run it, with its payload for who looks at it."""
    status = _among(JobStatus, text(row, "status"), "status")
    job = _job(row, status)
    if job["status"] is JobStatus.QUEUED:
        job |= {"status": JobStatus.FAILED, "last_error": NOT_KNOWN_HERE}
    return Job(**job, payload=json_object(row, "payload_json"), dedupe_key=given(row, "dedupe_key"))  # type: ignore[arg-type]


def _job(row: OldRow, status: JobStatus) -> dict[str, object]:
    """Return what all jobs have. One that ran when the old service was stopped is to run again."""
    error = given(row, "last_error")
    ended = status not in {JobStatus.QUEUED, JobStatus.RUNNING}
    updated_at = instant(row, "updated_at")
    return {
        "id": job_id(row),
        "kind": shortened(text(row, "kind"), 100),
        "queue": DEFAULT_QUEUE,
        "priority": DEFAULT_PRIORITY,
        "status": status if ended else JobStatus.QUEUED,
        "run_at": instant(row, "run_at"),
        "attempt": min(whole(row, "attempt"), MAX_ERROR) if ended else 0,
        "max_attempts": DEFAULT_MAX_ATTEMPTS,
        "created_at": instant(row, "created_at"),
        "updated_at": updated_at,
        "finished_at": updated_at if ended else None,
        "last_error": None if error is None else shortened(error, MAX_ERROR),
    }


def hook_of(row: OldRow, owner: ParticipantId) -> Hook:
    """Return the response handler in a row."""
    kind = text(row, "hook_type")
    if kind == CONVERSATION_HOOK:
        return Hook(participant_id=owner, handler_type=FLOW_TYPE, flow_type=FLOW_TYPE)
    parameters = json_object(row, "parameters")
    options = parameters.get("options", parameters.get("branch_options"))
    if isinstance(options, str):
        options = as_json(options, "parameters.options")
    question = imported_id(instant(row, "created_at"), "prompts", text(row, "phone_number"))
    data = {**parameters, "prompt": kind, "options": options, "message_id": question}
    if kind not in {"branch", "genai"}:
        raise UnreadableError("hook_type is none that is here; the conversation answers instead")
    if prompt_in(data) is None:
        raise UnreadableError("parameters are not enough to answer by; the conversation answers instead")
    return Hook(
        participant_id=owner,
        handler_type=kind,
        flow_type=PROMPTS,
        expires_at=instant(row, "updated_at") + WAITS_FOR,
        data=data,
    )


def message_id(row: OldRow) -> MessageId:
    """Return the id of the message in a row."""
    return MessageId(imported_id(instant(row, "created_at"), "outbox_messages", text(row, "id")))


def message_of(row: OldRow, person: Participant, now: datetime) -> ImportedMessage:
    """Return the message in a row. What was being sent is held in doubt; nobody is written to who has withdrawn."""
    status = _STATUSES.get(text(row, "status"))
    if status is None:
        raise UnreadableError("status is none that there is")
    if status is MessageStatus.QUEUED and person.status is ParticipantStatus.WITHDRAWN:
        status = MessageStatus.CANCELED
    in_doubt = status is MessageStatus.IN_DOUBT
    waiting = status is MessageStatus.QUEUED
    later = instant(row, "next_attempt_at") if given(row, "next_attempt_at") else None
    since = "locked_at" if in_doubt and given(row, "locked_at") else "updated_at"
    attempts = min(whole(row, "attempts"), MAX_ERROR)
    broadcast = text(row, "kind") in _BROADCASTS
    message = OutboxMessage(
        id=message_id(row),
        participant_id=person.id,
        channel=person.channel,
        recipient=person.addresses[0],
        content=Text(_body(json_object(row, "payload_json"))),
        message_class=MessageClass.BROADCAST if broadcast else MessageClass.REPLY,
        status=status,
        # The old service counted refusals alone.
        attempts=attempts if waiting or status is MessageStatus.CANCELED else max(1, attempts + in_doubt),
        created_at=instant(row, "created_at"),
        dedupe_key=name_in(row, "dedupe_key") if waiting or in_doubt else None,
        in_doubt_policy=InDoubtPolicy.HOLD if in_doubt else None,
        last_error=IN_DOUBT if in_doubt else given(row, "last_error"),
    )
    not_before = later if waiting and later is not None and later > now else None
    return ImportedMessage(message=message, since=instant(row, since), not_before=not_before)


def _body(payload: dict[str, object]) -> str:
    body = next((payload[name] for name in ("body", "message", "text") if payload.get(name)), None)
    if not isinstance(body, str) or not body.strip():
        raise UnreadableError("payload_json has no text")
    if len(body) > MAX_TEXT:
        raise UnreadableError(f"its text has more than {MAX_TEXT} characters")
    return body


def mark_of(row: OldRow, channel: str, number_id: str) -> InboundMark:
    """Return the mark in a row of `inbound_dedup`."""
    provider_id, seen_at = name_in(row, "message_id"), instant(row, "received_at")
    if provider_id is None:
        raise UnreadableError("message_id is missing")
    return InboundMark(channel=channel, number_id=number_id, provider_id=provider_id, seen_at=seen_at)


def receipt_of(row: OldRow, channel: str) -> ImportedReceipt:
    """Return the receipt in a row. Whose it is, is left out: nobody could erase it with the person."""
    at, status = instant(row, "time"), text(row, "status").replace("cancelled", "canceled")
    receipt = Receipt(
        id=imported_id(at, "receipts", text(row, "id"), text(row, "recipient"), status),
        message_id=None,
        provider_message_id=f"imported:{text(row, 'id')}",
        status=_among(MessageStatus, status, "status"),
        error=None,
        provider_time=at,
        received_at=at,
    )
    raw = json.dumps({"status": status, "time": int(at.timestamp())}).encode()
    return ImportedReceipt(receipt=receipt, channel=channel, raw=raw)


def sender_of(row: OldRow) -> str:
    """Return who wrote a response: a number with its `+`, or what else stands there."""
    sender = text(row, "sender")
    return e164(sender) or shortened(sender, 100)


def response_of(row: OldRow, owner: ParticipantId | None, channel: str, number_id: str) -> ImportedResponse:
    """Return the response in a row; *owner* is who wrote it, if that is known."""
    at, old_id, body = instant(row, "time"), text(row, "id"), given(row, "body") or ""
    response = Response(
        id=ResponseId(imported_id(at, "responses", old_id, text(row, "sender"), body)),
        participant_id=owner,
        channel=channel,
        message_id=f"imported:{old_id}",
        sender=sender_of(row),
        type="text",
        text=body,
        raw=json.dumps({"body": body, "time": int(at.timestamp())}, ensure_ascii=False).encode(),
        provider_time=at,
        received_at=at,
        processed_at=at,
    )
    return ImportedResponse(response=response, number_id=number_id)


def _string(data: dict[str, object], name: str, where: str) -> str:
    value = data.get(name)
    if not isinstance(value, str) or not value:
        raise UnreadableError(f"{where}.{name} is missing")
    return value
