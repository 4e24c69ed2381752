"""h2's side of a connection: the protocol's state, with our limits in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from h2.config import H2Configuration
from h2.connection import ConnectionInputs, ConnectionState, H2Connection, H2ConnectionStateMachine
from h2.frame_buffer import FrameBuffer
from h2.settings import SettingCodes, Settings

if TYPE_CHECKING:
    from hyperframe.frame import Frame

    from promptpipe.rpc.http2.limits import Limits

DEFAULT_WINDOW = 65535
FRAME_HEADER = 9


class Protocol(H2Connection):
    """h2's connection, except that streams outlive a GOAWAY (RFC 9113, section 6.8); for h2, nothing does."""

    def __init__(self, limits: Limits, *, client_side: bool) -> None:
        # What a gRPC peer's headers have to be, the call's code checks; beyond that their form is no concern of ours.
        config = H2Configuration(
            client_side=client_side,
            header_encoding=None,
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        super().__init__(config)
        self.state_machine = _States()
        self.incoming_buffer = _Frames(server=not client_side)
        settings = {
            SettingCodes.INITIAL_WINDOW_SIZE: limits.stream_window,
            SettingCodes.MAX_CONCURRENT_STREAMS: limits.streams,
            SettingCodes.MAX_HEADER_LIST_SIZE: limits.header_list,
        }
        if client_side:
            settings[SettingCodes.ENABLE_PUSH] = 0
        # Set like this, and not by an update, the limits are in force from the first byte on.
        self.local_settings = Settings(client=client_side, initial_values=settings)
        self.decoder.max_header_list_size = limits.header_list
        self.initiate_connection()
        self.increment_flow_control_window(limits.connection_window - DEFAULT_WINDOW)

    def clear_outbound_data_buffer(self) -> None:
        """Keep what is to be sent: h2 would drop it at a GOAWAY, and the peer's header table would miss it."""


class _Frames(FrameBuffer):
    """Refuses a frame that is too long before it is there; h2 would wait for its 16 MiB."""

    def __next__(self) -> Frame:
        if len(self._data) >= FRAME_HEADER:
            self._validate_frame_length(int.from_bytes(self._data[:3], "big"))
        return super().__next__()


class _States(H2ConnectionStateMachine):
    _transitions = H2ConnectionStateMachine._transitions | {  # noqa: SLF001  its methods would cost each frame a call
        (state, ConnectionInputs.RECV_GOAWAY): (None, state) for state in ConnectionState
    }
