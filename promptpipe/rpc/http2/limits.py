"""What a peer may do."""

from __future__ import annotations

import math
from dataclasses import dataclass

import h2.events
from h2.exceptions import ProtocolError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a peer may do. Sizes in bytes, times in seconds.

    A peer may send *frame_burst* frames that carry nothing, and *frame_rate* more each second: pings, settings,
    priorities, resets and what else can be sent for ever without a call being made. Each message that it is sent
    allows for one more, since some clients answer them with pings, to measure how much they may be sent.
    """

    stream_window: int = 1 << 19
    connection_window: int = 1 << 21
    header_list: int = 16384
    streams: int = 1000
    frame_burst: int = 1000
    frame_rate: float = 200.0
    settle: float = 10.0
    """From the start until the peer has said its settings."""
    ping_after: float = 60.0
    """Silence after which the peer is asked whether it is there."""
    pong_within: float = 20.0
    idle: float = math.inf
    """Without a stream, after which the connection ends."""
    last_words: float = 1.0
    """For a peer to hang up once it was told why. Hanging up on it could destroy what it has not read yet."""


# What the event of a frame that carries nothing costs of the peer's budget. Senders of messages do send window updates.
_COSTS: dict[type[h2.events.Event], float] = {
    h2.events.PingReceived: 1.0,
    h2.events.PingAckReceived: 1.0,
    h2.events.RemoteSettingsChanged: 1.0,
    h2.events.SettingsAcknowledged: 1.0,
    h2.events.PriorityUpdated: 1.0,
    h2.events.UnknownFrameReceived: 1.0,
    h2.events.StreamReset: 1.0,
    h2.events.WindowUpdated: 0.05,
}


class TooManyFramesError(ProtocolError):
    """The peer sends more frames that carry nothing than it may."""


class FrameBudget:
    """Counts a peer's frames that carry nothing against what it may send of them."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._left = float(limits.frame_burst)
        self._counted_at = now

    def refill(self, now: float) -> None:
        """Add what the time since the last call allows."""
        self.earn((now - self._counted_at) * self._limits.frame_rate)
        self._counted_at = now

    def earn(self, frames: float) -> None:
        """Allow for *frames* more."""
        self._left = min(self._limits.frame_burst, self._left + frames)

    def spend(self, event: h2.events.Event) -> None:
        """Count the frame that *event* came from; raise `TooManyFramesError`."""
        cost = _COSTS.get(type(event), 0.0)
        if isinstance(event, h2.events.DataReceived) and not event.data and event.stream_ended is None:
            cost = 1.0
        if cost:
            self._left -= cost
            if self._left < 0:
                raise TooManyFramesError("too many frames that carry nothing")
