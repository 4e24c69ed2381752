"""A peer that does as it is told: it takes one request per connection and answers with bytes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

Answer: TypeAlias = "bytes | Callable[[bytes], bytes | None] | None"
"""What a request is answered with (None: nothing, for ever), or what says so."""


@dataclass
class Peer:
    """How it is to answer, and the requests that came."""

    answer: Answer
    url: str = ""
    requests: list[bytes] = field(default_factory=list)
    open_requests: int = 0
    most_open: int = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        """Read a request with a Content-Length, answer, and hang up."""
        async with stream:
            request = b""
            while not _complete(request):
                data = await stream.receive_some()
                if not data:
                    return
                request += data
            self.requests.append(request)
            self.open_requests += 1
            self.most_open = max(self.most_open, self.open_requests)
            try:
                answer = self.answer(request) if callable(self.answer) else self.answer
                if answer is None:
                    await _wait_hung_up(stream)
                else:
                    await stream.send_all(answer)
            finally:
                self.open_requests -= 1


async def _wait_hung_up(stream: trio.SocketStream) -> None:
    try:
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError:
        pass


def _complete(request: bytes) -> bool:
    head, separator, body = request.partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    return bool(separator) and len(body) >= sum(lengths)


def http(status: str, body: bytes = b"", **headers: str) -> bytes:
    """Return an HTTP response."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def open_peer(answer: Answer) -> AsyncIterator[Peer]:
    """Give a peer on loopback."""
    peer = Peer(answer)
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, peer.serve, 0, host="127.0.0.1"))
        peer.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        yield peer
        nursery.cancel_scope.cancel()
