"""HTTP/2 and gRPC framing of a server connection: purerpc's `GRPCConnection`, mended where it would hurt others.

No I/O and no calls live here: bytes go in, events come out, and what is to be sent is taken with
`data_to_send`. What purerpc answers with an exception (and so with the end of every call on the connection)
is here an event for the one stream that it concerns: a bad path, a message over the limit, compression, a
reset. `docs/edge.md` has the list.
"""

from typing import Any, Final

import h2.config
import h2.connection
import h2.events
import hyperframe.frame
from attrs import frozen
from h2.errors import ErrorCodes
from h2.exceptions import FrameTooLargeError
from h2.settings import SettingCodes, Settings
from purerpc.grpclib.buffers import MessageReadBuffer
from purerpc.grpclib.config import GRPCConfiguration
from purerpc.grpclib.connection import GRPCConnection
from purerpc.grpclib.events import MessageReceived, RequestEnded
from purerpc.grpclib.exceptions import MessageTooLargeError, UnsupportedMessageEncodingError
from purerpc.grpclib.status import Status, StatusCode

from statehouse.errors import InvalidRequestError, OverloadedError
from statehouse.limits import CALLS_PER_CONNECTION, KIB, MIB
from statehouse.rpc.call_headers import parse_headers, refusal
from statehouse.rpc.error_table import TRAILER_NAME, EncodedError, GrpcStatus, encode_error

__all__ = ["CallRefused", "CallReset", "PeerLeft", "ServerProtocol"]

STREAM_WINDOW_BYTES: Final = MIB
CONNECTION_WINDOW_BYTES: Final = 4 * MIB
"""What a client may have under way to us, on one call and on all of a connection together."""
FRAME_BYTES: Final = 64 * KIB
HEADER_LIST_BYTES: Final = 8 * KIB
RECEIVED_BYTES: Final = 16 * MIB
"""Of requests that have not ended, over all calls of a connection (or two whole requests, if that is more)."""

_FRAME_HEADER_BYTES: Final = 9
_OK: Final = Status(StatusCode.OK)
_INITIAL_WINDOW: Final = 65_535  # RFC 9113, 6.9.2: the connection's window starts here whatever the settings say


@frozen
class CallRefused:
    """A call that no handler may see; it is to be answered with this."""

    stream_id: int
    error: EncodedError


@frozen
class CallReset:
    """The client has given the call up; nothing can be sent on it any more."""

    stream_id: int


@frozen
class PeerLeft:
    """The client said goodbye (GOAWAY): its calls are over."""


class _H2Connection(h2.connection.H2Connection):  # type: ignore[misc]
    """h2 3.2 ends the connection over a frame that was under way when its stream ended; RFC 9113, 5.1 says not to."""

    def _receive_window_update_frame(self, frame: hyperframe.frame.WindowUpdateFrame) -> Any:
        return ([], []) if self._is_over(frame.stream_id) else super()._receive_window_update_frame(frame)

    def _receive_rst_stream_frame(self, frame: hyperframe.frame.RstStreamFrame) -> Any:
        return ([], []) if self._is_over(frame.stream_id) else super()._receive_rst_stream_frame(frame)

    def _is_over(self, stream_id: int) -> bool:
        return 0 < stream_id <= self.highest_inbound_stream_id and stream_id not in self.streams


class ServerProtocol(GRPCConnection):  # type: ignore[misc]
    """The frames of one connection.

    `receive_data` returns events: purerpc's `RequestReceived`, `MessageReceived`, `RequestEnded` and
    `WindowUpdated`, and `CallRefused`, `CallReset`, `PeerLeft`. It raises `h2.exceptions.ProtocolError`
    when the peer breaks HTTP/2 as a whole; the GOAWAY that says so is then there to be sent.
    """

    def __init__(self, max_request_bytes: int) -> None:
        super().__init__(GRPCConfiguration(client_side=False, max_message_length=max_request_bytes))
        # purerpc has h2 check headers and decode them as UTF-8, and a bad one ends the connection: here they come as
        # they are, and `parse_headers` refuses the one call.
        configuration = h2.config.H2Configuration(
            client_side=False, header_encoding=None, validate_inbound_headers=False, normalize_inbound_headers=False
        )
        self.h2_connection = _H2Connection(configuration)
        self._set_h2_connection_local_settings()
        self._received: dict[int, int] = {}  # bytes of each request that has not ended
        self._most_received = max(RECEIVED_BYTES, 2 * max_request_bytes)

    def _set_h2_connection_local_settings(self) -> None:
        self.h2_connection.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: CALLS_PER_CONNECTION,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
                SettingCodes.MAX_FRAME_SIZE: FRAME_BYTES,
                SettingCodes.MAX_HEADER_LIST_SIZE: HEADER_LIST_BYTES,
            },
        )
        self.h2_connection.max_inbound_frame_size = FRAME_BYTES
        # h2 takes this setting over only when a *change* of it is acknowledged.
        self.h2_connection.decoder.max_header_list_size = HEADER_LIST_BYTES

    def initiate_connection(self) -> None:
        """Send the settings; the first thing on a connection."""
        self.h2_connection.initiate_connection()
        self.h2_connection.increment_flow_control_window(CONNECTION_WINDOW_BYTES - _INITIAL_WINDOW)

    def receive_data(self, data: bytes | bytearray) -> list[object]:
        """Take what came; see the class for what is returned and raised."""
        events: list[object] = super().receive_data(data)
        # h2 3.2 looks at a frame's length only when all of the frame has come: 16 MiB, at the sender's leisure.
        begun = self.h2_connection.incoming_buffer.data
        if len(begun) >= _FRAME_HEADER_BYTES and int.from_bytes(begun[:3], "big") > FRAME_BYTES:
            self.h2_connection.close_connection(ErrorCodes.FRAME_SIZE_ERROR)
            raise FrameTooLargeError(f"a frame over {FRAME_BYTES} bytes")
        return events

    @property
    def pending_output_bytes(self) -> int:
        """What waits for `data_to_send`."""
        return len(self.h2_connection._data_to_send)  # noqa: SLF001 - purerpc makes it a bytearray

    def announce_shutdown(self) -> None:
        """GOAWAY: no new calls, please. Those that are here go on, which h2's own `close_connection` would forbid."""
        frame = hyperframe.frame.GoAwayFrame(0)
        frame.last_stream_id = self.h2_connection.highest_inbound_stream_id
        self.h2_connection._prepare_for_sending([frame])  # noqa: SLF001

    def is_open(self, stream_id: int) -> bool:
        """Whether the call's stream stands; events of a packet are taken when all of it has been read."""
        stream = self.h2_connection.streams.get(stream_id)
        return stream is not None and not stream.closed

    def succeed(self, stream_id: int, *, started: bool) -> None:
        """End a call whose response is complete (`started`), or is a stream without a message."""
        if started:
            self.end_response(stream_id, _OK)
        else:
            self.respond_status(stream_id, _OK, "+proto")

    def refuse(self, stream_id: int, error: EncodedError, *, started: bool) -> None:
        """End a call with an error, after its response has `started` or instead of one."""
        status = Status(int(error.status), error.message)
        if started:
            self.end_response(stream_id, status, [(TRAILER_NAME, error.trailer)])
        else:
            self.respond_status(stream_id, status, "+proto", [(TRAILER_NAME, error.trailer)])
        self._forget(stream_id)
        if self.is_open(stream_id):  # the client is still sending: it may stop (RFC 9113, 8.1)
            self.reset_stream(stream_id, ErrorCodes.NO_ERROR)

    def cut_off(self, stream_id: int) -> None:
        """End a call in the middle of a message, where no status can follow."""
        self._forget(stream_id)
        self.reset_stream(stream_id, ErrorCodes.CANCEL)

    def _request_received(self, event: h2.events.RequestReceived) -> list[object]:
        request = parse_headers(event.stream_id, event.headers)
        if isinstance(request, EncodedError):
            return [CallRefused(event.stream_id, request)]
        self.message_read_buffers[event.stream_id] = MessageReadBuffer(None, self.config.max_message_length)
        self._received[event.stream_id] = 0
        return [request]

    def _data_received(self, event: h2.events.DataReceived) -> list[object]:
        stream_id = event.stream_id
        # Handed back at once: a window could not let a message pass that is larger than itself. What is kept is
        # bounded by the size of a message, and over a connection by `_most_received`.
        self.acknowledge_received_data(stream_id, event.flow_controlled_length)
        buffer = self.message_read_buffers.get(stream_id)
        if buffer is None:
            return []
        self._received[stream_id] += len(event.data)
        if sum(self._received.values()) > self._most_received:
            message = f"requests under way on this connection hold more than {self._most_received} bytes"
            return [CallRefused(stream_id, encode_error(OverloadedError(message)))]
        try:
            buffer.data_received(event.data)
        except MessageTooLargeError:
            size, limit = buffer._message_length, self.config.max_message_length  # noqa: SLF001
            details = {"limit": str(limit), "size": str(size)}
            error = InvalidRequestError(f"the request is {size} bytes; the limit is {limit}", details=details)
            return [CallRefused(stream_id, encode_error(error))]
        except UnsupportedMessageEncodingError:
            return [CallRefused(stream_id, refusal(GrpcStatus.UNIMPLEMENTED, "compressed messages are not supported"))]
        return [MessageReceived(stream_id, each, 0) for each, _ in buffer.read_all_complete_messages_flowcontrol()]

    def _trailers_received(self, event: h2.events.TrailersReceived) -> list[object]:  # noqa: ARG002
        return []  # a gRPC client sends none, and they mean nothing

    def _stream_ended(self, event: h2.events.StreamEnded) -> list[object]:
        if event.stream_id not in self.message_read_buffers:
            return []
        self._forget(event.stream_id)
        return [RequestEnded(event.stream_id)]

    def _stream_reset(self, event: h2.events.StreamReset) -> list[object]:
        self._forget(event.stream_id)
        return [CallReset(event.stream_id)]

    def _connection_terminated(self, event: h2.events.ConnectionTerminated) -> list[object]:  # noqa: ARG002
        return [PeerLeft()]

    def _forget(self, stream_id: int) -> None:
        self.message_read_buffers.pop(stream_id, None)
        self._received.pop(stream_id, None)
