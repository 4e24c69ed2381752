"""One connection: its reader, its writer, and its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h2.events
import structlog
import trio
from h2.errors import ErrorCodes
from h2.exceptions import NoAvailableStreamIDError, ProtocolError
from hyperframe.frame import GoAwayFrame
from trio.lowlevel import ParkingLot

from promptpipe.rpc.http2.limits import FrameBudget, TooManyFramesError
from promptpipe.rpc.http2.protocol import Protocol
from promptpipe.rpc.http2.stream import ConnectionLostError, Http2Stream, StreamResetError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from promptpipe.rpc.http2.limits import Limits
    from promptpipe.rpc.http2.stream import Headers

READ_SIZE, MAX_READ_SIZE = 2048, 65536
"""Bytes read at a time: few, that the first calls are answered while others are read; more while more comes."""
HIGH_WATER = 65536
"""Bytes of messages that may wait for the transport before senders have to."""
MAX_UNSENT = 262144
"""Bytes of any kind that may wait for the transport before the peer is not listened to any more."""
SEND_SECONDS = 20.0
"""How long a peer may leave a write waiting."""
MAX_HEADER_TABLE = 4096
"""Bytes of headers that are remembered for a peer, to be sent shorter. It may ask for any number."""
MAX_STREAM_ID = 2**31 - 1

log = structlog.get_logger(__name__)


class Http2Connection:
    """One connection over *transport*, from the moment it is there; `run` serves it to its end.

    With *on_request* it is the server's end: that is called, in the reader's task, for each stream that the peer opens.
    """

    def __init__(
        self,
        transport: trio.abc.Stream,
        limits: Limits,
        on_request: Callable[[Http2Stream], None] | None = None,
    ) -> None:
        self.transport = transport
        self.limits = limits
        self.streams: dict[int, Http2Stream] = {}
        self.settled = trio.Event()
        """Set once the peer has said its settings, or never will."""
        self.lost: ConnectionLostError | None = None
        """Why no new stream can be opened here; None while one can."""
        self.h2 = Protocol(limits, client_side=on_request is None)
        self._on_request = on_request
        self._over = False
        self._closing = False
        self._last_words = 0.0
        self._out = bytearray()
        self._unsent = 0
        self._wake = trio.Event()
        self._writable = ParkingLot()
        self._slots = ParkingLot()
        self._last_heard = self._idle_since = trio.current_time()
        self._budget = FrameBudget(limits, self._last_heard)
        self._ended = trio.CancelScope()
        self._takers: dict[type[h2.events.Event], Callable[[Any], None]] = {
            h2.events.DataReceived: self._take_data,
            h2.events.RequestReceived: self._take_request,
            h2.events.ResponseReceived: self._take_headers,
            h2.events.TrailersReceived: self._take_headers,
            h2.events.StreamEnded: self._take_end,
            h2.events.StreamReset: self._take_reset,
            h2.events.WindowUpdated: self._take_window,
            h2.events.RemoteSettingsChanged: self._take_settings,
            h2.events.ConnectionTerminated: self._take_goaway,
        }

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve the connection until either side ends it. Streams still open then fail."""
        try:
            with self._ended:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._keep_watch)
                    task_status.started()
                    await self._read()
                    nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._lose()
            await trio.aclose_forcefully(self.transport)

    def close(self) -> None:
        """End the connection now."""
        self._ended.cancel()

    def go_away(self, *, final: bool = False) -> None:
        """Tell the peer to open no more streams here; with *final*, end once those open have ended.

        Between the two, a peer has the time to learn it (RFC 9113, section 6.8).
        """
        last = self.h2.highest_inbound_stream_id if final else MAX_STREAM_ID
        self._collect()
        self._out += GoAwayFrame(0, last_stream_id=last, error_code=ErrorCodes.NO_ERROR).serialize()
        if final:
            self._end_with(self.limits.last_words)
        self._wake.set()

    # ------------------------------------------------------------------ for streams

    async def open_stream(self, headers: Headers) -> Http2Stream:
        """Open a stream to a server, once the peer has room for one more; raise `ConnectionLostError`."""
        await self.settled.wait()
        while self.lost is None and len(self.streams) >= self.h2.remote_settings.max_concurrent_streams:
            await self._slots.park()
        if self.lost is not None:
            raise self.lost
        try:
            stream = Http2Stream(self, self.h2.get_next_available_stream_id())
        except NoAvailableStreamIDError:
            raise self._retire("the connection's stream numbers are used up") from None
        self.h2.send_headers(stream.id, headers)
        self.streams[stream.id] = stream
        self.flush()
        return stream

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Let the peer send *size* bytes more."""
        if size and not self._over:
            self.h2.acknowledge_received_data(size, stream_id)
            self._wake.set()

    def flush(self, size: int = 0) -> None:
        """Have what h2 wants to send sent, *size* bytes of messages among it."""
        if size:
            self._unsent += size
            self._budget.earn(1.0)
        self._wake.set()

    async def wait_writable(self) -> None:
        """Wait until not too much waits for the transport."""
        while self._unsent > HIGH_WATER and not self._over:
            await self._writable.park()

    def forget(self, stream: Http2Stream) -> None:
        """Let go of a stream at its end."""
        if self.streams.pop(stream.id, None) is not None:
            self._idle_since = trio.current_time()
            self._wake.set()
        self._slots.unpark()

    # ------------------------------------------------------------------ the connection's tasks

    async def _write(self) -> None:
        while True:
            size = self._unsent
            self._collect()
            if not self._out:
                if self._closing and not self.streams:
                    await trio.sleep(self._last_words)
                    self._ended.cancel()
                self._wake = trio.Event()
                await self._wake.wait()
                continue
            data, self._out = self._out, bytearray()
            with trio.move_on_after(SEND_SECONDS) as deadline:
                await self.transport.send_all(data)
            if deadline.cancelled_caught:
                log.info("connection closed: its peer does not read")
                self._ended.cancel()
                return
            self._unsent -= size
            self._writable.unpark_all()

    async def _read(self) -> None:
        size = READ_SIZE
        while data := await self.transport.receive_some(size):
            size = min(2 * size, MAX_READ_SIZE) if len(data) == size else READ_SIZE
            self._last_heard = trio.current_time()
            try:
                self._take(data)
            except (ProtocolError, UnicodeError) as error:
                log.info("connection closed: its peer breaks the protocol", error=str(error)[:200])
                self._lose()
                self._end_with(self.limits.last_words)
                self._wake.set()
                with trio.move_on_after(self.limits.last_words):
                    while await self.transport.receive_some(MAX_READ_SIZE):
                        pass
                return
            self._collect()
            if self._out:
                self._wake.set()
            while len(self._out) > MAX_UNSENT:
                await self._writable.park()

    async def _keep_watch(self) -> None:
        with trio.move_on_after(self.limits.settle):
            await self.settled.wait()
        if not self.settled.is_set():
            self._ended.cancel()
        while True:
            now = trio.current_time()
            quiet = now - self._last_heard
            if not self.streams and not self._closing and now - self._idle_since >= self.limits.idle:
                self.go_away(final=True)
            if quiet >= self.limits.ping_after + self.limits.pong_within:
                self._ended.cancel()
            elif quiet >= self.limits.ping_after and not self._over:
                self.h2.ping(b"are you?")
                self._wake.set()
            await trio.sleep(self.limits.pong_within / 2)

    def _collect(self) -> None:
        self._out += self.h2.data_to_send()

    # ------------------------------------------------------------------ its end

    def _end_with(self, last_words: float) -> None:
        """End when all streams have ended and all is sent, *last_words* seconds after that."""
        self._closing = True
        self._last_words = last_words

    def _retire(self, reason: str) -> ConnectionLostError:
        """Open no more streams, and return why."""
        self.lost = self.lost or ConnectionLostError(reason)
        self._end_with(0.0)
        self._slots.unpark_all()
        return self.lost

    def _lose(self) -> None:
        """Fail all streams: nothing that comes now has a meaning, and nothing of theirs can be sent."""
        self._over = True
        self._retire("the connection is lost")
        self.settled.set()
        self._writable.unpark_all()
        streams = list(self.streams.values())
        self.streams.clear()
        for stream in streams:
            stream.fail(ConnectionLostError("the connection is lost"))

    # ------------------------------------------------------------------ events

    def _take(self, data: bytes | bytearray) -> None:
        self._budget.refill(self._last_heard)
        try:
            for event in self.h2.receive_data(data):
                self._budget.spend(event)
                if (take := self._takers.get(type(event))) is not None:
                    take(event)
        except TooManyFramesError:
            self.h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            raise
        except UnicodeError:
            self.h2.close_connection(ErrorCodes.PROTOCOL_ERROR)
            raise

    def _stream(self, event: Any) -> Http2Stream | None:
        return self.streams.get(event.stream_id)

    def _take_headers(self, event: h2.events.ResponseReceived | h2.events.TrailersReceived) -> None:
        if (stream := self._stream(event)) is not None:
            stream.take_headers(_text(event.headers))

    def _take_end(self, event: h2.events.StreamEnded) -> None:
        if (stream := self._stream(event)) is not None:
            stream.end_input()

    def _take_reset(self, event: h2.events.StreamReset) -> None:
        if (stream := self._stream(event)) is not None:
            stream.fail(StreamResetError(int(event.error_code or 0)))

    def _take_window(self, event: h2.events.WindowUpdated) -> None:
        if event.stream_id == 0:
            self._widen_all()
        elif (stream := self._stream(event)) is not None:
            stream.widen()

    def _take_settings(self, _: h2.events.RemoteSettingsChanged) -> None:
        encoder = self.h2.encoder
        encoder.header_table_size = min(encoder.header_table_size, MAX_HEADER_TABLE)
        self.settled.set()
        self._widen_all()
        self._slots.unpark_all()

    def _widen_all(self) -> None:
        for stream in self.streams.values():
            stream.widen()

    def _take_data(self, event: h2.events.DataReceived) -> None:
        data, length = event.data or b"", event.flow_controlled_length or 0
        stream = self._stream(event)
        if stream is None:
            self.acknowledge(event.stream_id or 0, length)
        else:
            stream.feed(data)
            self.acknowledge(stream.id, length - len(data))

    def _take_request(self, event: h2.events.RequestReceived) -> None:
        stream = Http2Stream(self, event.stream_id or 0)
        if self._closing or self._on_request is None:
            # The peer was told that this stream would not be served, and may be asking another server already.
            stream.reset(ErrorCodes.REFUSED_STREAM)
            return
        stream.headers = _text(event.headers)
        self.streams[stream.id] = stream
        self._on_request(stream)

    def _take_goaway(self, event: h2.events.ConnectionTerminated) -> None:
        self._retire("the peer is going away")
        if self._on_request is None:
            for stream in list(self.streams.values()):
                if event.last_stream_id is not None and stream.id > event.last_stream_id:
                    stream.fail(ConnectionLostError("the peer is going away"))


def _text(headers: Sequence[tuple[bytes, bytes]] | None) -> Headers:
    return [(name.decode("ascii"), value.decode("latin-1")) for name, value in headers or ()]
