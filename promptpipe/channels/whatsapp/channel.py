"""`ports.channel.Channel` for the WhatsApp Cloud API."""

from __future__ import annotations

import hmac
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

import httpx2
import trio

from promptpipe.channels.whatsapp import signature
from promptpipe.channels.whatsapp.content import content
from promptpipe.channels.whatsapp.errors import refusal
from promptpipe.channels.whatsapp.parse import CHANNEL, MAX_ID, parse
from promptpipe.model.errors import SignatureError, VerificationError, described
from promptpipe.model.messages import SendResult, Verdict
from promptpipe.model.participants import AddressKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from typing import Any

    from promptpipe.model.inbound import InboundBatch
    from promptpipe.model.messages import Departure, OutboxMessage, SendOrder

MAX_ANSWER = 64 * 1024
"""Bytes of an answer that are looked at; Meta's are a few hundred."""
CONNECTIONS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatsAppConfig:
    """The number to send from and the secrets that go with it. *send_timeout* bounds a whole request, in seconds."""

    api_url: str
    phone_number_id: str
    access_token: str
    app_secret: str
    verify_token: str
    send_timeout: float = 10.0

    def __repr__(self) -> str:
        """Name the number, no secrets."""
        return f"WhatsAppConfig(api_url={self.api_url!r}, phone_number_id={self.phone_number_id!r})"


class WhatsAppChannel:
    """One WhatsApp number. Open it with `opened`."""

    name = CHANNEL

    def __init__(self, config: WhatsAppConfig, client: httpx2.AsyncClient) -> None:
        self._config = config
        self._client = client
        self._url = f"{config.api_url.rstrip('/')}/{config.phone_number_id}/messages"

    @classmethod
    @asynccontextmanager
    async def opened(cls, config: WhatsAppConfig) -> AsyncIterator[WhatsAppChannel]:
        """Give a channel whose connections are closed with the context."""
        client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {config.access_token}", "Accept-Encoding": "identity"},
            timeout=httpx2.Timeout(config.send_timeout),
            limits=httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
            follow_redirects=False,
        )
        async with client:
            yield cls(config, client)

    @property
    def send_timeout(self) -> float:
        """See `Channel.send_timeout`."""
        return self._config.send_timeout

    def handshake(self, query: Mapping[str, str]) -> str:
        """See `Channel.handshake`."""
        token = query.get("hub.verify_token", "")
        if query.get("hub.mode") != "subscribe" or not hmac.compare_digest(
            token.encode(errors="replace"), self._config.verify_token.encode()
        ):
            raise VerificationError("the verify token is not ours")
        return query.get("hub.challenge", "")

    def receive(self, headers: Mapping[str, str], body: bytes) -> InboundBatch:
        """See `Channel.receive`."""
        if not signature.is_signed(self._config.app_secret, body, headers.get(signature.HEADER)):
            raise SignatureError("the signature is missing or wrong")
        return parse(body, self._config.phone_number_id)

    async def send(self, order: SendOrder, departure: Departure) -> SendResult:
        """See `Channel.send`. There is no idempotency key: the callback data is what tells attempts apart."""

        async def trace(event: str, _info: Mapping[str, Any]) -> None:
            if event.endswith("send_request_headers.started"):
                departure.note()

        try:
            with trio.fail_after(self._config.send_timeout):
                async with self._client.stream(
                    "POST", self._url, json=_request(order), extensions={"trace": trace}
                ) as response:
                    return _result(response.status_code, await _read(response))
        except (httpx2.RequestError, trio.TooSlowError) as error:
            verdict = Verdict.DOUBTFUL if departure.left else Verdict.UNSENT
            return SendResult(verdict=verdict, error=described(error))


def _request(order: SendOrder) -> dict[str, object]:
    return {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        **_recipient(order.message),
        **content(order.message.content),
        "biz_opaque_callback_data": order.reference,
    }


def _recipient(message: OutboxMessage) -> dict[str, object]:
    if message.recipient.kind is AddressKind.USER_ID:
        return {"recipient": message.recipient.value}
    # With its `+`: without it, Meta may take the number for a local one and prepend a country code.
    return {"to": message.recipient.value}


async def _read(response: httpx2.Response) -> object:
    """Return the JSON of an answer; None when it is too long or none.

    It is read to its end whatever its length, within the time-out: a stream left in the middle is not closed cleanly.
    """
    body = bytearray()
    async for chunk in response.aiter_raw():
        if len(body) <= MAX_ANSWER:
            body += chunk
    if len(body) > MAX_ANSWER:
        return None
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value


def _result(status: int, body: object) -> SendResult:
    if status >= HTTPStatus.BAD_REQUEST or status < HTTPStatus.OK:
        return refusal(status, body)
    match body:
        case {"messages": [{"id": str(provider_id)}, *_]} if 0 < len(provider_id) <= MAX_ID:
            return SendResult(verdict=Verdict.ACCEPTED, provider_id=provider_id)
    if status >= HTTPStatus.MULTIPLE_CHOICES:
        return refusal(status, body)
    # It was taken, but we were not told under which id: a status with our callback data will.
    return SendResult(verdict=Verdict.DOUBTFUL, error=f"HTTP {status} without a message id")
