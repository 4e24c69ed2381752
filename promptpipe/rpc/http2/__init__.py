"""HTTP/2 on Trio, for both ends of a gRPC connection. h2 keeps the protocol's state; this moves the bytes.

Only one task of a connection writes to its transport, so that a canceled call cannot cut a frame in half. A peer
costs bounded memory: what it may send ahead is the flow-control windows, what it leaves unread stops whoever writes
to it and in the end whoever reads from it, and frames that carry nothing are counted. Whatever a peer does wrong ends
its connection, and nothing else.
"""

from __future__ import annotations

from promptpipe.rpc.http2.connection import Http2Connection
from promptpipe.rpc.http2.limits import Limits
from promptpipe.rpc.http2.stream import ConnectionLostError, Headers, Http2Stream, StreamResetError

__all__ = ["ConnectionLostError", "Headers", "Http2Connection", "Http2Stream", "Limits", "StreamResetError"]
