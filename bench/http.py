"""Just enough HTTP/1.1 to load a server and to be one, at a small part of what it costs to serve."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

import trio

from promptpipe.channels.whatsapp import signature
from promptpipe.config import SIMULATOR_APP_SECRET, SIMULATOR_PHONE_NUMBER_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RECEIVE = 65_536
WEBHOOK = "/webhooks/whatsapp"
PATIENCE = 60.0
"""Seconds until a service is ready, at most."""


class ConnectionLostError(Exception):
    """The peer hung up in the middle."""


class Messages:
    """Reads what comes on a connection, message by message."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def next(self) -> tuple[bytes, bytes] | None:
        """Return the head and the body of the next request or response; None when the peer has hung up."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if not await self._more():
                return None
        head = bytes(self._buffer[:end])
        length = content_length(head)
        while len(self._buffer) < end + 4 + length:
            if not await self._more():
                raise ConnectionLostError
        body = bytes(self._buffer[end + 4 : end + 4 + length])
        del self._buffer[: end + 4 + length]
        return head, body

    async def _more(self) -> bool:
        data = await self._stream.receive_some(RECEIVE)
        self._buffer += data
        return bool(data)


def content_length(head: bytes) -> int:
    """Return how long the body is that follows *head*."""
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


class Client:
    """Asks a server on loopback, by as many connections as are asked at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[trio.SocketStream, Messages]] = []

    async def ask(self, request: bytes) -> int:
        """Return the status of the response to *request*."""
        if self._idle:
            stream, messages = self._idle.pop()
        else:
            stream = await trio.open_tcp_stream("127.0.0.1", self._port)
            messages = Messages(stream)
        await stream.send_all(request)
        answer = await messages.next()
        if answer is None:
            raise ConnectionLostError
        self._idle.append((stream, messages))
        return int(answer[0].split(b" ", 2)[1])

    async def wait_ready(self, path: str = "/readyz") -> None:
        """Return when the service says at *path* that all is well; by default, that it takes webhooks."""
        with trio.fail_after(PATIENCE):
            while True:
                with suppress(OSError, ConnectionLostError):
                    if await self.ask(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()) == HTTPStatus.OK:
                        return
                await trio.sleep(0.02)


async def serve(listener: trio.SocketListener, answer: Callable[[bytes], Mapping[str, object]]) -> None:
    """Answer each request with what *answer* makes of its body, until canceled."""

    async def handle(stream: trio.SocketStream) -> None:
        messages = Messages(stream)
        while (request := await messages.next()) is not None:
            body = json.dumps(answer(request[1])).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            await stream.send_all(head.encode() + body)

    await trio.serve_listeners(handle, [listener])


def signed(value: Mapping[str, object]) -> bytes:
    """Return the request of a webhook, signed as Meta does."""
    value = {"metadata": {"phone_number_id": SIMULATOR_PHONE_NUMBER_ID}, **value}
    body = json.dumps({"entry": [{"changes": [{"field": "messages", "value": value}]}]}).encode()
    head = (
        f"POST {WEBHOOK} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"{signature.HEADER}: {signature.sign(SIMULATOR_APP_SECRET, body)}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def text_webhook(sender: str, wamid: str, text: str) -> bytes:
    """Return the request that brings what someone writes."""
    message = {"from": sender, "id": wamid, "timestamp": _now(), "type": "text", "text": {"body": text}}
    return signed({"contacts": [{"profile": {"name": "Ada"}, "wa_id": sender}], "messages": [message]})


def status_webhook(recipient: str, wamid: str, status: str, callback_data: str) -> bytes:
    """Return the request that brings how far a message of ours has come."""
    update = {
        "id": wamid,
        "status": status,
        "timestamp": _now(),
        "recipient_id": recipient,
        "biz_opaque_callback_data": callback_data,
    }
    return signed({"statuses": [update]})


def _now() -> str:
    return str(int(time.time()))  # noqa: TID251  what Meta says of its clock
