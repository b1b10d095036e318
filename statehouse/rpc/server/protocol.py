"""A server's connection without I/O: HTTP/2's frames as the calls that they are, and answers as frames.

Bytes go into `receive`, and `take_events` has what they mean for calls. A call's request is one message, or
several in a conversation; each is put together here and bounded here:

* a stream may send 64 KiB at first. Once a message's length is known it may send the rest of it, as soon as there is
  room for it; when too many wait for that, it is refused. So nobody has us keep more than we chose to.
* a message up to FREE_MESSAGE_BYTES needs no room: whoever fills the memory that large requests share must not
  keep small ones out. They are bounded by the calls that a connection may have.
"""

from collections.abc import Callable
from typing import Final

from attrs import define

from statehouse.errors import InvalidRequestError, OverloadedError
from statehouse.limits import CALLS_PER_CONNECTION, KIB, MIB
from statehouse.rpc.error_table import TRAILER_NAME, EncodedError, encode_error
from statehouse.rpc.http2.connection import Connection
from statehouse.rpc.http2.faults import StreamFaultError
from statehouse.rpc.http2.frames import (
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    ErrorCode,
    FrameType,
    Setting,
)
from statehouse.rpc.http2.header_blocks import HeaderDecoder
from statehouse.rpc.http2.outgoing import FIRST_WINDOW
from statehouse.rpc.http2.streams import Stream
from statehouse.rpc.messages import MESSAGE_HEADER, MESSAGE_HEADER_BYTES, MessageReader
from statehouse.rpc.metadata import encode_binary, encode_text
from statehouse.rpc.server.call_headers import (
    HEADER_LIST_BYTES,
    CallHeaders,
    Malformed,
    Plain,
    Received,
    Trailers,
    read,
)
from statehouse.rpc.server.events import (
    CallBegan,
    CallRefused,
    CallReset,
    Event,
    MessageCame,
    PeerLeft,
    RequestEnded,
    RoomGrew,
)
from statehouse.rpc.server.plain_http import PlainAnswers
from statehouse.rpc.server.request_budget import RequestBudget, Waiting
from statehouse.rpc.server.response_blocks import ResponseBlocks

__all__ = ["ServerProtocol"]

CONNECTION_WINDOW_BYTES: Final = MIB
"""What a client may have under way to us, over all its calls."""
FREE_MESSAGE_BYTES: Final = 16 * KIB
ROOM_SHARE: Final = 1 / 128
"""When so much of a larger message has come, memory is taken for all of it: its length alone is five bytes."""


@define(eq=False)
class _Request:
    """What has come of a request; kept at its stream until it is whole."""

    reader: MessageReader
    content_length: int | None
    plain: Plain | None = None
    """A request that is no gRPC; its content is not looked at."""
    received_bytes: int = 0
    held_bytes: int = 0
    holds_current: bool = False
    """Whether the message that has begun is among them, or in line for it."""
    waiting: Waiting | None = None
    """In line for what a message takes; until then it gets no more window."""


class ServerProtocol(Connection[Received]):
    """The frames of one connection. `ended` says that the peer broke HTTP/2; the GOAWAY is then in `output`."""

    def __init__(
        self, request_bytes: int, budget: RequestBudget, now: float, output_came: Callable[[], None] = lambda: None
    ) -> None:
        """`request_bytes` is the longest message of a request; `budget` is shared with other connections.

        `output_came` is called when there is output that nothing here was told to make: room for a request came free.
        """
        settings = {
            Setting.MAX_CONCURRENT_STREAMS: CALLS_PER_CONNECTION,
            Setting.MAX_HEADER_LIST_SIZE: HEADER_LIST_BYTES,
        }
        super().__init__(
            client=False,
            settings=settings,
            window_bytes=CONNECTION_WINDOW_BYTES,
            decoder=HeaderDecoder(read),
            now=now,
        )
        self._request_bytes = request_bytes
        self._budget = budget
        self._output_came = output_came
        self._events: list[Event] = []
        self._ended_bytes = 0
        self._blocks = ResponseBlocks()
        self._plain = PlainAnswers(self, self._blocks)

    def take_events(self) -> list[Event]:
        """What came since the last time, in its order."""
        events, self._events = self._events, []
        return events

    # Answers. On a stream that is closed they change nothing.

    def answer(self, stream: Stream, message: bytes) -> bool:
        """Send all of a unary call's answer at once: headers, message, status. False when the windows are too small."""
        size = MESSAGE_HEADER_BYTES + len(message)
        if stream.closed:
            return True
        if size > stream.send_window or size > self.send_window or size > self.peer_frame_bytes:
            return False
        stream.send_window -= size
        self.send_window -= size
        headers, trailers = self._blocks.headers(), self._blocks.trailers()
        pack, stream_id = FRAME_HEADER.pack, stream.id
        self.output += b"".join(
            (
                pack(0, len(headers), FrameType.HEADERS, END_HEADERS, stream_id),
                headers,
                pack(size >> 8, size & 0xFF, FrameType.DATA, 0, stream_id),
                MESSAGE_HEADER.pack(0, len(message)),
                message,
                pack(0, len(trailers), FrameType.HEADERS, END_HEADERS | END_STREAM, stream_id),
                trailers,
            )
        )
        self._end_sent(stream)
        return True

    def begin_answer(self, stream: Stream) -> None:
        """Send the headers of a response."""
        if not stream.closed:
            self.send_headers(stream, self._blocks.headers(), ends=False)

    def succeed(self, stream: Stream, *, started: bool) -> None:
        """End a call whose response is complete (`started`), or is a stream without a message."""
        if not stream.closed:
            self._end(stream, self._blocks.trailers() if started else self._blocks.only_trailers())

    def refuse(self, stream: Stream, error: EncodedError, *, started: bool) -> None:
        """End a call with an error, after its response has `started` or instead of one."""
        status = (b"grpc-status", b"%d" % error.status), (b"grpc-message", encode_text(error.message))
        trailers = [*status, (TRAILER_NAME.encode(), encode_binary(error.trailer))]
        if not stream.closed:
            self._end(stream, self._blocks.failure(trailers, started=started))

    def cut_off(self, stream: Stream) -> None:
        """End a call in the middle of a message, where no status can follow."""
        self._let_go(stream)
        self.reset(stream, ErrorCode.CANCEL)

    def _end(self, stream: Stream, block: bytes) -> None:
        self._let_go(stream)
        self.send_headers(stream, block, ends=True)
        self.need_no_more(stream)

    # What came

    def _stream_opened(self, stream: Stream, headers: Received, *, ends: bool) -> None:
        if len(self.streams) > CALLS_PER_CONNECTION:
            raise StreamFaultError(stream.id, ErrorCode.REFUSED_STREAM, "more streams than were allowed")
        if isinstance(headers, Plain):
            stream.call = _Request(MessageReader(0), headers.content_length, plain=headers)
            if ends:
                self._request_ended(stream, stream.call)
            return
        if not isinstance(headers, CallHeaders):
            reason = headers.reason if isinstance(headers, Malformed) else "a request without method, scheme or path"
            raise StreamFaultError(stream.id, ErrorCode.PROTOCOL_ERROR, reason)
        if headers.refused is not None:
            self._events.append(CallRefused(stream, headers.refused))
            return
        stream.call = _Request(MessageReader(self._request_bytes), headers.content_length)
        self._events.append(CallBegan(stream, headers))
        if ends:
            self._request_ended(stream, stream.call)

    def _headers_came(self, stream: Stream, headers: Received, *, ends: bool) -> None:
        if not ends or not isinstance(headers, Trailers):
            raise StreamFaultError(stream.id, ErrorCode.PROTOCOL_ERROR, "a second header list that is no trailers")
        if stream.call is not None:
            self._request_ended(stream, stream.call)

    def _data_came(self, stream: Stream, payload: bytes, *, ends: bool) -> None:
        request: _Request | None = stream.call
        if request is None:  # refused already
            return
        request.received_bytes += len(payload)
        if request.plain is not None:
            if ends or request.received_bytes > FREE_MESSAGE_BYTES:  # enough of it
                self._request_ended(stream, request, ends=ends)
            return
        try:
            reader = request.reader
            messages = reader.feed(payload)
            if messages:
                request.holds_current = False  # another one that follows is kept beside them
            if reader.message_bytes > FREE_MESSAGE_BYTES and not request.holds_current:
                self._hold(stream, request)
            is_held = request.holds_current and request.waiting is None
            if is_held and reader.begun_bytes >= reader.message_bytes * ROOM_SHARE:
                reader.make_room()
        except (InvalidRequestError, OverloadedError) as error:
            self._refuse(stream, encode_error(error))
            return
        for message in messages:
            self._events.append(MessageCame(stream, message))
        if ends:
            self._request_ended(stream, request)
            return
        self._let_come(stream, request)

    def _let_come(self, stream: Stream, request: _Request) -> None:
        """A message may come in whole, whatever the window; between messages there is a window's worth of room."""
        if request.waiting is not None:
            return
        wanted = request.reader.missing_bytes or (FIRST_WINDOW if stream.receive_window < FIRST_WINDOW // 2 else 0)
        if stream.receive_window < wanted:
            self.grant(stream, wanted - stream.receive_window)

    def _request_ended(self, stream: Stream, request: _Request, *, ends: bool = True) -> None:
        stream.call = None
        if request.waiting is not None:  # all of it came within its first window
            self._budget.leave(request.waiting)
            request.waiting = None
        self._ended_bytes += request.held_bytes  # until the events are handled, its message is kept
        if ends and request.content_length not in (None, request.received_bytes):
            raise StreamFaultError(stream.id, ErrorCode.PROTOCOL_ERROR, "not as much DATA as content-length says")
        if request.plain is not None:
            self._plain.answer(stream, request.plain)
        elif request.reader.missing_bytes:
            error = InvalidRequestError("the request ends in the middle of a message")
            self._events.append(CallRefused(stream, encode_error(error)))
        else:
            self._events.append(RequestEnded(stream))

    def _refuse(self, stream: Stream, error: EncodedError) -> None:
        self._let_go(stream)
        self._events.append(CallRefused(stream, error))

    def _hold(self, stream: Stream, request: _Request) -> None:
        size = request.reader.message_bytes

        def admitted() -> None:
            request.waiting = None
            request.held_bytes += size
            self._let_come(stream, request)
            self._output_came()

        if request.waiting is None and self._budget.take(size):
            request.held_bytes += size
        elif request.waiting is None and (waiting := self._budget.wait(size, admitted)) is not None:
            request.waiting = waiting
        else:  # the line is too long, or it waits there for the message before
            raise OverloadedError("large requests under way hold all the memory that they may; try again")
        request.holds_current = True

    def _let_go(self, stream: Stream) -> None:
        request, stream.call = stream.call, None
        if request is not None:
            self._let_go_of_bytes(request)

    def _let_go_of_bytes(self, request: _Request) -> None:
        if request.waiting is not None:
            self._budget.leave(request.waiting)
            request.waiting = None
        if request.held_bytes:
            self._budget.give_back(request.held_bytes)
            request.held_bytes = 0

    def let_go_of_ended(self) -> None:
        """All events are handled: give back what requests held that have come in."""
        if self._ended_bytes:
            self._budget.give_back(self._ended_bytes)
            self._ended_bytes = 0

    def let_go_of_all(self) -> None:
        """The connection is over: give back what its requests held."""
        self.let_go_of_ended()
        for stream in self.streams.values():
            self._let_go(stream)

    def _reset_came(self, stream: Stream, code: int) -> None:  # noqa: ARG002
        self._let_go(stream)
        self._events.append(CallReset(stream))

    def _window_grew(self, stream: Stream | None) -> None:
        self._plain.go_on()
        self._events.append(RoomGrew(stream))

    def _settings_came(self) -> None:
        self._plain.go_on()
        self._events.append(RoomGrew(None))

    def _setting_came(self, name: int, value: int) -> None:
        if name == Setting.HEADER_TABLE_SIZE:
            self._blocks.table_set(value)

    def _goaway_came(self, last_stream_id: int, code: int, text: bytes) -> None:  # noqa: ARG002
        self._events.append(PeerLeft())
