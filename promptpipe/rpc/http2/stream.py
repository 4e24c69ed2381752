"""One stream of a connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio
from h2.exceptions import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from h2.errors import ErrorCodes

    from promptpipe.rpc.http2.connection import Http2Connection

Headers = Sequence[tuple[str, str]]

YIELD_EVERY = 64
"""Messages that one task may take or send without waiting before others have their turn."""


class ConnectionLostError(Exception):
    """The connection is gone, or does not take this stream any more."""


class StreamResetError(Exception):
    """The peer has given up the stream."""

    def __init__(self, code: int) -> None:
        super().__init__(f"reset by the peer (HTTP/2 error {code})")
        self.code = code


class Http2Stream:
    """One stream of a connection: bytes in, bytes out, both under flow control. One task reads, one writes."""

    def __init__(self, connection: Http2Connection, stream_id: int) -> None:
        self.connection = connection
        self.id = stream_id
        self.headers: Headers | None = None
        self.trailers: Headers | None = None
        self.input_ended = False
        self.output_ended = False
        self.cut_short = False
        """Whether a message was begun and is not complete."""
        self.failure: Exception | None = None
        self.on_failure: Callable[[], None] | None = None
        self._buffer = bytearray()
        self._unacknowledged = 0
        self._input = trio.Event()
        self._window = trio.Event()
        self._turns = 0

    # ------------------------------------------------------------------ what the connection's reader does to it

    def feed(self, data: bytes) -> None:
        """Take in what the peer has sent."""
        self._buffer += data
        self._unacknowledged += len(data)
        self._input.set()

    def take_headers(self, headers: Headers) -> None:
        """Take in headers: the first are the headers, the second the trailers."""
        if self.headers is None:
            self.headers = headers
        else:
            self.trailers = headers
        self._input.set()

    def end_input(self) -> None:
        """Note that the peer sends no more."""
        self.input_ended = True
        self._input.set()

    def widen(self) -> None:
        """Note that the peer takes more."""
        self._window.set()

    def fail(self, error: Exception) -> None:
        """Note that nothing comes or goes any more."""
        if self.failure is None:
            self.failure = error
            self._input.set()
            self._window.set()
            if self.on_failure is not None:
                self.on_failure()

    # ------------------------------------------------------------------ what a call does with it

    async def wait_headers(self) -> Headers:
        """Return the peer's headers once they are there."""
        while self.headers is None:
            await self._wait_input()
        return self.headers

    async def wait_ended(self) -> None:
        """Wait until the peer has ended the stream. What it sent and nobody has read is dropped."""
        while not self.input_ended:
            self._drop_unread()
            await self._wait_input()

    async def peek(self, size: int) -> bytes:
        """Return the next *size* bytes, or fewer when the peer ended the stream before, and leave them there.

        Raise `StreamResetError` or `ConnectionLostError`.
        """
        while len(self._buffer) < size and not self.input_ended:
            # What is here is as good as read. Were it to use up the connection's window, the rest could not come.
            self._acknowledge_all_but(0)
            await self._wait_input()
        return bytes(self._buffer[:size])

    async def receive(self, size: int) -> bytes:
        """Return what `peek` does, and take it; when canceled, nothing."""
        await self._give_turn()
        data = await self.peek(size)
        del self._buffer[:size]
        self._acknowledge_all_but(len(self._buffer))
        return data

    def send_headers(self, headers: Headers, *, end: bool = False) -> None:
        """Send headers, or trailers; they leave soon."""
        self._check()
        self.output_ended = end
        self.connection.h2.send_headers(self.id, headers, end_stream=end)
        self.connection.flush()

    async def send(self, data: bytes, *, end: bool = False) -> None:
        """Send *data* as fast as the peer takes it; raise `StreamResetError` or `ConnectionLostError`.

        Once a part of it is sent, the rest has to be: a call that is canceled in between can send no more.
        """
        if self.cut_short:
            raise RuntimeError("two tasks send at once, or one was canceled within a message")
        await self._give_turn()
        position = 0
        while True:
            room = await self._wait_room(wanted=position < len(data))
            chunk = data[position : position + room] if position or room < len(data) else data
            position += len(chunk)
            self.cut_short = position < len(data)
            self.output_ended = end and not self.cut_short
            self.connection.h2.send_data(self.id, chunk, end_stream=self.output_ended)
            self.connection.flush(len(chunk))
            if not self.cut_short:
                return

    async def _wait_room(self, *, wanted: bool) -> int:
        """Return how many bytes may be sent now."""
        protocol = self.connection.h2
        while True:
            await self.connection.wait_writable()
            self._check()
            room = min(protocol.local_flow_control_window(self.id), protocol.max_outbound_frame_size)
            if room > 0 or not wanted:
                return room
            self._window = trio.Event()
            await self._window.wait()

    def reset(self, code: ErrorCodes) -> None:
        """Give the stream up, unless it has ended already."""
        if self.failure is not None or (self.input_ended and self.output_ended):
            return
        try:
            self.connection.h2.reset_stream(self.id, error_code=code)
        except ProtocolError:
            return  # the peer has been quicker
        self.connection.flush()

    def release(self, code: ErrorCodes) -> None:
        """Give back what the stream holds of its connection, and give it up for *code* if it has not ended.

        Every stream is released at its end.
        """
        self._drop_unread()
        self.reset(code)
        self.connection.forget(self)

    async def _give_turn(self) -> None:
        self._turns += 1
        if self._turns % YIELD_EVERY == 0:
            await trio.lowlevel.checkpoint()

    async def _wait_input(self) -> None:
        self._check()
        self._input = trio.Event()
        await self._input.wait()

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _drop_unread(self) -> None:
        self._buffer.clear()
        self._acknowledge_all_but(0)

    def _acknowledge_all_but(self, size: int) -> None:
        """Let the peer send as much as it has sent, but for *size* bytes."""
        if self._unacknowledged > size:
            self.connection.acknowledge(self.id, self._unacknowledged - size)
            self._unacknowledged = size
