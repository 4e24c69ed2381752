"""Makes Hypercorn's Trio worker safe against its peers.

Hypercorn 0.18 lets any exception but OSError in one connection cancel the whole service (a websocket upgrade
with a trailing byte does, and so do 1,500 PRIORITY frames), and shields its writes, so that a client which does
not read blocks the shutdown for ever. It keeps a connection whose peer has hung up until the idle time is over, and
with Quart-Trio it forgets which connections are idle.

Here a connection fails alone, a write has a deadline, an idle connection is known as one, and the number of
connections has a bound. It replaces private parts of that exact version; anything else is refused at import.
"""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

import structlog
import trio
from hypercorn.events import Closed, Event, RawData
from hypercorn.trio import run as hypercorn_run
from hypercorn.trio.tcp_server import TCPServer

if TYPE_CHECKING:
    from typing import Any

GUARDED_VERSION = "0.18.0"
SEND_SECONDS = 5.0
"""How long a peer may leave a write waiting."""
MAX_CONNECTIONS = 1000
"""Connections at a time; one more is closed unanswered."""

log = structlog.get_logger(__name__)

if importlib.metadata.version("hypercorn") != GUARDED_VERSION:
    raise ImportError(
        f"promptpipe.web.guard knows the insides of Hypercorn {GUARDED_VERSION} only,"
        f" not of {importlib.metadata.version('hypercorn')}"
    )


class GuardedServer(TCPServer):
    """One connection, contained."""

    open_connections = 0

    async def run(self) -> None:
        """Serve the connection; whatever goes wrong in it ends it alone."""
        if GuardedServer.open_connections >= MAX_CONNECTIONS:
            log.warning("connection refused", open=GuardedServer.open_connections)
            await trio.aclose_forcefully(self.stream)
            return
        GuardedServer.open_connections += 1
        try:
            await super().run()
        except* Exception as group:  # noqa: BLE001  a connection fails alone
            log.warning("connection failed", errors=[repr(error) for error in _leaves(group)])
        finally:
            GuardedServer.open_connections -= 1

    async def _read_data(self) -> None:
        await super()._read_data()
        # The peer has hung up: nobody is left whose idleness could be waited for.
        await self.idle_task.stop()

    async def protocol_send(self, event: Event) -> None:
        """Write to the peer, which has a few seconds to make room."""
        if not isinstance(event, RawData):
            # The end of a response cancels the task that sent it, in the middle of this: without the shield, an
            # idle connection would not be noticed as such, and would hold up the shutdown.
            with trio.CancelScope(shield=True):
                await super().protocol_send(event)
            return
        async with self.send_lock:
            with trio.move_on_after(SEND_SECONDS, shield=True) as deadline:
                try:
                    await self.stream.send_all(event.data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    await self.protocol.handle(Closed())
            if deadline.cancelled_caught:
                # A part of it may have left: the peer cannot make sense of what would follow.
                await trio.aclose_forcefully(self.stream)
                await self.protocol.handle(Closed())


def _leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    return [
        leaf
        for error in group.exceptions
        for leaf in (_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]


hypercorn_run.TCPServer = GuardedServer  # type: ignore[attr-defined]
worker_serve = hypercorn_run.worker_serve
