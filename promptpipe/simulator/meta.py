"""Requests, answers, errors and webhooks in Meta's shapes."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from pydantic import ValidationError

from promptpipe.channels.whatsapp.errors import known_codes
from promptpipe.config import SIMULATOR_PHONE_NUMBER_ID
from promptpipe.model.text import as_text
from promptpipe.simulator.interactive import INTERACTIVE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from promptpipe.simulator.interactive import Interactive
    from promptpipe.simulator.world import Bubble, Phone

DISPLAY_PHONE_NUMBER = "15550783881"
BUSINESS_ACCOUNT_ID = "102290129340398"
MAX_TEXT = 4096
MAX_CALLBACK_DATA = 512

_KNOWN = {entry["code"]: entry for entry in known_codes()}


class RefusedError(Exception):
    """A request that Meta would refuse: the HTTP status and the body of the answer."""

    def __init__(self, code: int, message: str, details: str | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status or _status_of(code)
        error: dict[str, object] = {
            "message": f"(#{code}) {message}",
            "type": "OAuthException",
            "code": code,
            "fbtrace_id": secrets.token_urlsafe(8),
        }
        if details is not None:
            error["error_data"] = {"messaging_product": "whatsapp", "details": details}
        self.body = {"error": error}


def refusal_of(code: int) -> RefusedError:
    """Return the refusal with an error code, in its documented words."""
    meaning = str(_KNOWN.get(code, {}).get("meaning", "unknown error"))
    return RefusedError(code, meaning, details=meaning)


def _status_of(code: int) -> int:
    status = _KNOWN.get(code, {}).get("http_status_seen")
    return status if isinstance(status, int) else HTTPStatus.BAD_REQUEST


def new_wamid() -> str:
    """Return a message id that looks like Meta's."""
    return "wamid." + base64.b64encode(secrets.token_bytes(30)).decode()


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A send request that Meta would take. *text* is what there is to read, *interactive* the choices with it."""

    recipient: str
    text: str
    callback_data: str | None
    interactive: Interactive | None = None


def checked(request: Mapping[str, object]) -> Outgoing:
    """Return what a send request is to send; raise `RefusedError` as Meta does."""
    if request.get("messaging_product") != "whatsapp":
        raise RefusedError(100, "The parameter messaging_product is required.")
    recipient = as_text(request, "to") or as_text(request, "recipient")
    if not recipient:
        raise RefusedError(100, "The parameter to is required.")
    callback_data = as_text(request, "biz_opaque_callback_data")
    if callback_data is not None and len(callback_data) > MAX_CALLBACK_DATA:
        raise RefusedError(100, "Invalid parameter", details="biz_opaque_callback_data is too long")
    match request.get("type", "text"):
        case "text":
            return Outgoing(recipient, _checked_text(request), callback_data)
        case "interactive":
            interactive = _checked_interactive(request)
            return Outgoing(recipient, str(interactive), callback_data, interactive)
    raise RefusedError(131051, "Unsupported message type", details="The simulator takes text and interactive messages.")


def _checked_text(request: Mapping[str, object]) -> str:
    content = request.get("text")
    text = as_text(content, "body") if isinstance(content, dict) else None
    if not text:
        raise RefusedError(131008, "Required parameter is missing", details="Parameter of type text is missing body")
    if len(text) > MAX_TEXT:
        raise RefusedError(100, "Invalid parameter", details="Param text['body'] must be at most 4096 characters long.")
    return text


def _checked_interactive(request: Mapping[str, object]) -> Interactive:
    if "interactive" not in request:
        raise RefusedError(131008, "Required parameter is missing", details="Parameter interactive is missing")
    try:
        return INTERACTIVE.validate_python(request["interactive"])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        details = ".".join(["interactive", *map(str, first["loc"])]) + f": {first['msg']}"
        if first["type"] in {"missing", "union_tag_not_found"}:
            raise RefusedError(131008, "Required parameter is missing", details) from error
        raise RefusedError(131009, "Parameter value is not valid", details) from error


def accepted(recipient: str, phone: Phone, message_id: str) -> dict[str, object]:
    """Return the answer to a request that was accepted."""
    return {
        "messaging_product": "whatsapp",
        "contacts": [{"input": recipient, "wa_id": phone.wa_id}],
        "messages": [{"id": message_id}],
    }


def message_webhook(phone: Phone, message: Mapping[str, object]) -> dict[str, object]:
    """Return the webhook of a message from a person."""
    contact = {"profile": {"name": phone.name}, "wa_id": phone.wa_id}
    return _webhook({"contacts": [contact], "messages": [message]})


def status_webhook(
    phone: Phone, message_id: str, status: str, at: datetime, callback_data: str | None
) -> dict[str, object]:
    """Return the webhook of a delivery status."""
    update: dict[str, object] = {
        "id": message_id,
        "status": status,
        "timestamp": _timestamp(at),
        "recipient_id": phone.wa_id,
    }
    if callback_data is not None:
        update["biz_opaque_callback_data"] = callback_data
    if status == "failed":
        update["errors"] = [{"code": 131026, "title": "Message undeliverable", "message": "Message undeliverable"}]
    return _webhook({"statuses": [update]})


def message_from(
    phone: Phone, message_id: str, at: datetime, content: Mapping[str, object], answered: Bubble | None = None
) -> dict[str, object]:
    """Return a message object as it stands in a webhook; *content* holds its type and what belongs to that."""
    message: dict[str, object] = {"from": phone.wa_id, "id": message_id, "timestamp": _timestamp(at)}
    if answered is not None:
        author = phone.wa_id if answered.mine else DISPLAY_PHONE_NUMBER
        message["context"] = {"from": author, "id": answered.id}
    return {**message, **content}


def _webhook(value: Mapping[str, object]) -> dict[str, object]:
    metadata = {"display_phone_number": DISPLAY_PHONE_NUMBER, "phone_number_id": SIMULATOR_PHONE_NUMBER_ID}
    change = {"field": "messages", "value": {"messaging_product": "whatsapp", "metadata": metadata, **value}}
    return {
        "object": "whatsapp_business_account",
        "entry": [{"id": BUSINESS_ACCOUNT_ID, "changes": [change]}],
    }


def _timestamp(at: datetime) -> str:
    return str(int(at.timestamp()))
