"""A client's connection without I/O: calls out, answers in, deadlines and signs of life.

Time is told from outside: with the bytes that came, with each call, and by `tick`, which is due at `check_at`. One
look at all calls when the next of them is due takes the place of a timer for each: a connection has a hundred
calls or so, and nearly all end long before their deadline.

A server that says nothing for `Keepalive.after_s` while calls are in flight is pinged; so is one that lets a call
run out of time. Whoever then says nothing for `Keepalive.answer_s` is gone: without it, calls to a host that
vanished would each wait for their own deadline.
"""

import math
from typing import Final

from attrs import frozen

from statehouse.errors import ConnectionError, InvalidRequestError, StatehouseError
from statehouse.rpc.client.call import STREAM_WINDOW_BYTES, Call
from statehouse.rpc.client.faults import DeadlineError, LostCallError, NotProcessedError
from statehouse.rpc.client.request_headers import Greeting, RequestHeaders
from statehouse.rpc.client.response import Response, read_response
from statehouse.rpc.error_table import GrpcStatus, decode_error
from statehouse.rpc.http2.budgets import Budget
from statehouse.rpc.http2.connection import Connection
from statehouse.rpc.http2.faults import ConnectionFaultError
from statehouse.rpc.http2.frames import U31, ErrorCode, FrameType, Setting
from statehouse.rpc.http2.header_blocks import HeaderDecoder
from statehouse.rpc.http2.streams import State, Stream
from statehouse.rpc.messages import MESSAGE_HEADER, Compressed, MessageTooLargeError

__all__ = ["KEEPALIVE_S", "PING_ANSWER_S", "ClientProtocol", "Keepalive"]

CONNECTION_WINDOW_BYTES: Final = 4 * 1024 * 1024
HEADER_LIST_BYTES: Final = 16 * 1024
FIRST_STREAMS: Final = 100
"""Calls at once, until the server's settings say otherwise."""
KEEPALIVE_S: Final = 30.0
PING_ANSWER_S: Final = 10.0
GOAWAY_CHARACTERS: Final = 100
"""How much is told of what a server says when it ends a connection."""

_SETTINGS: Final = {
    Setting.ENABLE_PUSH: 0,
    Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
    Setting.MAX_HEADER_LIST_SIZE: HEADER_LIST_BYTES,
}
_UNLIMITED: Final = frozenset({Budget.WINDOW_UPDATES, Budget.SMALL_DATA})
_TLS_ALERT: Final = b"\x15\x03"
"""Its type and version (RFC 8446, 5.1): what TLS answers to a client that speaks none. No first frame begins so."""
_PING: Final = b"statehse"


@frozen
class Keepalive:
    """When a server that says nothing is asked, and for how long its answer is waited for."""

    after_s: float = KEEPALIVE_S
    answer_s: float = PING_ANSWER_S


class ClientProtocol(Connection[Response]):
    """Calls on one connection. Every stream has a call; it is over when its stream is closed."""

    def __init__(self, greeting: Greeting, keepalive: Keepalive, *, address: str, now: float) -> None:
        """`address` is what messages call the server."""
        super().__init__(
            client=True,
            settings=dict(_SETTINGS),
            window_bytes=CONNECTION_WINDOW_BYTES,
            decoder=HeaderDecoder(read_response),
            now=now,
        )
        self._address = address
        self._keepalive = keepalive
        self._headers_of_calls = RequestHeaders(greeting)
        self._blocked: dict[int, Stream] = {}
        self._next_stream_id = 1
        self._heard_at = now
        self._pinged_at: float | None = None
        self.check_at = math.inf
        """When `tick` is due."""
        self.most_streams = FIRST_STREAMS
        self.answered = False
        """Whether any call was answered, or its answer began."""
        self.draining = False
        """Whether no new calls may start: the server said goodbye, or the stream ids are used up."""
        self.goaway_code = 0
        self.goaway_reason = ""
        """The code with what the server says of it, once there is a code."""
        self.silent = False
        """Whether the server did not answer a ping."""

    # Calls

    def start(self, call: Call, path: str, message: bytes, timeout_s: float | None, now: float) -> None:
        """Begin a call and send its one request, as far as the server's windows let it through.

        `timeout_s` is told to the server. The caller has looked at `draining` and `most_streams`.
        """
        stream_id = self.highest_stream_id = self._next_stream_id
        self._next_stream_id += 2
        self.draining = self.draining or self._next_stream_id > U31
        stream = self._new_stream(stream_id)
        stream.call, call.stream = call, stream
        self.send_headers(stream, self._headers_of_calls.block(path, timeout_s), ends=False)
        framed = MESSAGE_HEADER.pack(0, len(message)) + message
        if len(framed) <= self.room(stream):
            self.send_data(stream, framed, ends=True)
        else:
            call.unsent = memoryview(framed)
            self._blocked[stream_id] = stream
            self._send_more(stream)
        silent_at = self._heard_at + self._keepalive.after_s
        if now >= silent_at:
            self._probe(now)
        elif self._pinged_at is None:
            self.check_at = min(self.check_at, silent_at)
        self.check_at = min(self.check_at, call.deadline)

    def want(self, call: Call) -> None:
        """The reader of a stream has taken all that came, and waits for more."""
        call.wanted = True
        stream = call.stream
        if stream is not None and stream.state < State.HALF_CLOSED_REMOTE:
            self._return_window(stream)

    def leave(self, call: Call) -> None:
        """Nobody waits for the call any more: it is taken back, if it is not over."""
        call.messages.clear()
        if not call.over:
            call.over = True
            self._close(call, ErrorCode.CANCEL)

    def fail_all(self, reason: str) -> None:
        """The connection is lost, and with it every call that has no answer."""
        streams, self.streams = self.streams, {}
        self._blocked.clear()
        for stream in streams.values():
            stream.call.fail(LostCallError(reason))

    def tick(self, now: float) -> None:
        """End what is overdue, ask a server that says nothing, and give up one that does not answer."""
        check_at = math.inf
        for stream in list(self.streams.values()):
            call: Call = stream.call
            if call.deadline <= now:
                self._expire(call, now)
            else:
                check_at = min(check_at, call.deadline)
        if self._pinged_at is None and self.streams and now >= self._heard_at + self._keepalive.after_s:
            self._probe(now)
        if self._pinged_at is not None:
            answer_at = self._pinged_at + self._keepalive.answer_s
            self.silent = now >= answer_at
            check_at = min(check_at, answer_at)
        elif self.streams:
            check_at = min(check_at, self._heard_at + self._keepalive.after_s)
        self.check_at = check_at

    def receive(self, received: bytes, now: float) -> None:
        """Take what came."""
        self._heard_at = now
        self._pinged_at = None
        if not self.greeted and received.startswith(b"HTTP/"):
            self.end(ErrorCode.HTTP_1_1_REQUIRED, "it speaks HTTP/1")
        if not self.greeted and received.startswith(_TLS_ALERT):
            self.end(ErrorCode.PROTOCOL_ERROR, "it speaks TLS (use https://)")
        super().receive(received, now)

    def _expire(self, call: Call, now: float) -> None:
        if call.streaming:
            what = f"{call.name}: nothing came from {self._address} within {call.limit_s:g} s"
        else:
            what = f"{call.name} was not answered by {self._address} within {call.limit_s:g} s"
        self._fail(call, DeadlineError(what))
        if self._heard_at <= now - call.limit_s:
            self._probe(now)

    def _probe(self, now: float) -> None:
        if self._pinged_at is None:
            self._pinged_at = now
            self.ping(_PING)
            self.check_at = min(self.check_at, now + self._keepalive.answer_s)

    def _fail(self, call: Call, error: StatehouseError) -> None:
        call.fail(error)
        self._close(call, ErrorCode.CANCEL)

    def _close(self, call: Call, code: ErrorCode) -> None:
        stream = call.stream
        if stream is not None:
            if self._blocked:
                self._blocked.pop(stream.id, None)
            call.unsent = None
            if self.streams.get(stream.id) is stream:
                self.reset(stream, code)

    def _send_more(self, stream: Stream) -> None:
        unsent = stream.call.unsent
        room = self.room(stream)
        if unsent is None or room <= 0:
            return
        ends = room >= len(unsent)
        stream.call.unsent = None if ends else unsent[room:]
        if ends:
            del self._blocked[stream.id]
        self.send_data(stream, unsent[:room], ends=ends)

    def _return_window(self, stream: Stream) -> None:
        taken_bytes = STREAM_WINDOW_BYTES - stream.receive_window
        if taken_bytes >= STREAM_WINDOW_BYTES // 2:
            self.grant(stream, taken_bytes)

    # What came

    def _headers_came(self, stream: Stream, headers: Response, *, ends: bool) -> None:
        call: Call = stream.call
        if ends:
            self._end_came(call, headers)
        elif headers.informational:
            return
        elif headers.problem is not None:
            self._fail(call, ConnectionError(f"{self._address} does not speak gRPC: {headers.problem}"))
        elif call.encoding is not None:
            self._fail(call, ConnectionError("the server sent headers in the middle of its answer"))
        else:
            call.encoding = headers.encoding
            self.answered = True

    def _end_came(self, call: Call, headers: Response) -> None:
        status = headers.status
        if status == GrpcStatus.OK:
            if call.reader.missing_bytes:
                call.fail(ConnectionError("the server ended the call in the middle of a message"))
            elif not call.over:
                call.over = True
                call.wake()
        elif status is not None:
            error = decode_error(status, headers.message, headers.trailer)
            if type(error) is ConnectionError:  # in whose words the server says that it is no answer
                kind = LostCallError if status == GrpcStatus.UNAVAILABLE else DeadlineError
                error = kind(error.message, code=error.code, details=error.details)
            else:
                self.answered = True
            call.fail(error)
        elif headers.problem is not None:
            call.fail(ConnectionError(f"{self._address} does not speak gRPC: {headers.problem}"))
        else:
            call.fail(ConnectionError("the server ended the call without a readable gRPC status"))
        if call.unsent is not None:
            self._close(call, ErrorCode.CANCEL)  # it was answered before it had been asked to the end

    def _data_came(self, stream: Stream, payload: bytes, *, ends: bool) -> None:
        call: Call = stream.call
        if call.encoding is None:
            self._fail(call, ConnectionError("the server sent an answer without its headers"))
            return
        try:
            messages = call.reader.feed(payload)
        except MessageTooLargeError as error:
            what = (
                f"the answer is a message of {error.details['size']} bytes; this client takes {error.details['limit']}"
            )
            self._fail(call, StatehouseError(what))
            return
        except InvalidRequestError as error:
            self._fail(call, StatehouseError(f"the server sent {error.message}"))
            return
        if messages:
            if call.encoding != b"gzip" and any(type(each) is Compressed for each in messages):
                self._fail(
                    call, StatehouseError("the server sent a compressed message in a form that it does not name")
                )
                return
            call.messages += messages
            if call.streaming:
                call.wanted = False
                call.wake()
        if ends:
            self._fail(call, ConnectionError("the server ended the call without a gRPC status"))
        elif call.wanted:
            self._return_window(stream)

    def _reset_came(self, stream: Stream, code: int) -> None:
        # Cut off by the server, or here for the server's fault: either way it may have been carried out.
        error = NotProcessedError if code == ErrorCode.REFUSED_STREAM else LostCallError
        self._fail(stream.call, error(f"the call was cut off (HTTP/2 error {code})"))

    def _window_grew(self, stream: Stream | None) -> None:
        if self._blocked:
            for each in list(self._blocked.values()) if stream is None else [stream]:
                self._send_more(each)

    def _settings_came(self) -> None:
        self._window_grew(None)

    def _setting_came(self, name: int, value: int) -> None:
        if name == Setting.MAX_CONCURRENT_STREAMS:
            self.most_streams = value
        elif name == Setting.HEADER_TABLE_SIZE:
            self._headers_of_calls.limit_table(value)
        elif name == Setting.ENABLE_PUSH and value:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "a server that asks for pushes (RFC 9113, 6.5.2)")

    def _goaway_came(self, last_stream_id: int, code: int, text: bytes) -> None:
        self.draining = True
        if code and not self.goaway_code:
            self.goaway_code = code
            self.goaway_reason = f"HTTP/2 error {code}"
            if text and all(0x20 <= each < 0x7F for each in text):
                self.goaway_reason += f": {text[:GOAWAY_CHARACTERS].decode('ascii')}"
        for stream in [each for each in self.streams.values() if each.id > last_stream_id]:
            self._fail(stream.call, NotProcessedError(f"{self._address} is closing the connection"))

    def _spend(self, budget: Budget) -> None:
        # An honest server sends a window and a small answer with each call, as fast as it can be asked.
        if budget not in _UNLIMITED:
            super()._spend(budget)

    def _judge(self, kind: FrameType, stream_id: int) -> None:
        # What comes for a call that was left was under way, however many calls have been left since.
        if stream_id in self.streams or self._is_idle(stream_id):
            super()._judge(kind, stream_id)
