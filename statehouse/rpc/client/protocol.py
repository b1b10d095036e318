"""HTTP/2 and gRPC framing of a client connection: purerpc's `GRPCConnection` with its events put to use.

purerpc ignores resets and GOAWAY, and an answer that it cannot read ends the connection for every call on
it. Here such a thing ends the call that it concerns.
"""

from typing import TYPE_CHECKING, Final

import h2.events
import h2.exceptions
from h2.connection import ConnectionInputs, ConnectionState
from h2.errors import ErrorCodes
from h2.settings import SettingCodes, Settings
from hyperframe.frame import WindowUpdateFrame
from purerpc.grpclib.config import GRPCConfiguration
from purerpc.grpclib.connection import GRPCConnection

from statehouse.errors import ConnectionError

if TYPE_CHECKING:
    from statehouse.rpc.client.connection import ClientConnection

__all__ = ["STREAM_WINDOW_BYTES", "ClientProtocol", "NotProcessedError"]

STREAM_WINDOW_BYTES: Final = 1024 * 1024
"""What a server may send on one call before the caller asks for more."""
FRAME_BYTES: Final = 256 * 1024
HEADER_LIST_BYTES: Final = 16 * 1024


class NotProcessedError(ConnectionError):
    """The server says that it did not look at the call: it may be sent again whatever it does."""


class ClientProtocol(GRPCConnection):  # type: ignore[misc]
    """The frames of one connection. Its events go to the connection, and to the call they are for."""

    def __init__(self, connection: "ClientConnection") -> None:
        super().__init__(GRPCConfiguration(client_side=True, user_agent="statehouse-python"))
        self._connection = connection
        # h2 3.2 closes its state machine at GOAWAY and forgets what was to be sent, but answers to calls
        # in flight may still come. For this connection alone, its rules say otherwise.
        machine = self.h2_connection.state_machine
        machine._transitions = {  # noqa: SLF001
            **machine._transitions,  # noqa: SLF001
            (ConnectionState.CLIENT_OPEN, ConnectionInputs.RECV_GOAWAY): (None, ConnectionState.CLIENT_OPEN),
        }
        self.h2_connection.clear_outbound_data_buffer = lambda: None
        # A server may return flow control for a call that has ended meanwhile; to h2 that is an error of the
        # connection as soon as it has forgotten the stream.
        frames = self.h2_connection._frame_dispatch_table  # noqa: SLF001
        self._take_window_update = frames[WindowUpdateFrame]
        frames[WindowUpdateFrame] = self._window_update_came

    def _set_h2_connection_local_settings(self) -> None:
        self.h2_connection.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
                SettingCodes.MAX_FRAME_SIZE: FRAME_BYTES,
                SettingCodes.MAX_HEADER_LIST_SIZE: HEADER_LIST_BYTES,
            },
        )
        self.h2_connection.max_inbound_frame_size = FRAME_BYTES

    def _window_update_came(self, frame: WindowUpdateFrame) -> tuple[list[object], list[object]]:
        try:
            taken: tuple[list[object], list[object]] = self._take_window_update(frame)
        except h2.exceptions.StreamClosedError:
            return [], []
        return taken

    def _response_received(self, event: h2.events.ResponseReceived) -> list[object]:
        call = self._connection.call_of(event.stream_id)
        if call is None:
            return []
        headers = dict(event.headers)
        if headers.get(":status") != "200" or not headers.get("content-type", "").startswith("application/grpc"):
            call.fail(ConnectionError(f"the server does not speak gRPC: HTTP status {headers.get(':status')}"))
        elif event.stream_ended:
            call.status_came(headers)
        return []

    def _trailers_received(self, event: h2.events.TrailersReceived) -> list[object]:
        call = self._connection.call_of(event.stream_id)
        if call is not None:
            call.status_came(dict(event.headers))
        return []

    def _data_received(self, event: h2.events.DataReceived) -> list[object]:
        call = self._connection.call_of(event.stream_id)
        if call is None:
            self._connection.acknowledge(event.stream_id, event.flow_controlled_length)
        else:
            call.data_came(event.data, event.flow_controlled_length)
        return []

    def _stream_ended(self, event: h2.events.StreamEnded) -> list[object]:
        call = self._connection.call_of(event.stream_id)
        if call is not None:
            call.cut(ConnectionError("the server ended the call without a gRPC status"))
        return []

    def _stream_reset(self, event: h2.events.StreamReset) -> list[object]:
        call = self._connection.call_of(event.stream_id)
        if call is not None:
            refused = event.error_code == ErrorCodes.REFUSED_STREAM
            error = NotProcessedError if refused else ConnectionError
            call.cut(error(f"the server cut the call off (HTTP/2 error {int(event.error_code)})"))
        return []

    def _window_updated(self, event: h2.events.WindowUpdated) -> list[object]:  # noqa: ARG002
        self._connection.window_grew()
        return []

    def _remote_settings_changed(self, event: h2.events.RemoteSettingsChanged) -> list[object]:  # noqa: ARG002
        self._connection.greeted()
        return []

    def _connection_terminated(self, event: h2.events.ConnectionTerminated) -> list[object]:
        self._connection.farewell(event.last_stream_id, int(event.error_code))
        return []
