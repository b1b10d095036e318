"""One HTTP/2 connection without I/O, of either role.

Bytes that came go into `receive`; it never raises for what a peer does. What they mean for calls it tells
the role, by the methods at the end of the class; what is to be sent gathers in `output`. A peer that breaks
the protocol as a whole gets a GOAWAY, and `ended` says why; what is wrong with one stream resets that stream.

What arrives is bounded by the windows that the role grants, what is decoded by `header_blocks.py`, and work
that a peer gets for nothing by `budgets.py`. The connection's own window is returned as bytes come: the
streams' windows, which the role returns as it consumes messages, are what holds a sender back.
"""

from typing import Final, Generic, TypeVar

from statehouse.rpc.http2.budgets import SMALL_DATA_BYTES, SPENDS, Budget, Budgets
from statehouse.rpc.http2.faults import ConnectionFaultError, StreamFaultError
from statehouse.rpc.http2.frame_reader import FrameReader
from statehouse.rpc.http2.frames import (
    ACK,
    END_STREAM,
    PADDED,
    RULES,
    SETTINGS_RANGES,
    U31,
    U32,
    ErrorCode,
    FrameType,
    Place,
    Setting,
    frame,
    read_goaway,
    read_settings,
)
from statehouse.rpc.http2.gathering import Gathered, Gathering, check_priority, without_padding
from statehouse.rpc.http2.header_blocks import HeaderDecoder
from statehouse.rpc.http2.outgoing import FIRST_WINDOW, Outgoing
from statehouse.rpc.http2.streams import AFTER_END_RECEIVED, CLOSED_EARLY, RECEIVED, State, Stream

__all__ = ["Connection"]

H = TypeVar("H")

SETTINGS_BYTES: Final = 32 * 6
"""Of one SETTINGS frame. There are six settings; one that names the window 2,730 times has us change every stream as
often."""


class Connection(Outgoing, Generic[H]):
    """Frames in and out, and the state of every stream; `H` is what the role reads a header list as."""

    def __init__(
        self, *, client: bool, settings: dict[Setting, int], window_bytes: int, decoder: HeaderDecoder[H], now: float
    ) -> None:
        """`settings` are ours, `window_bytes` is what the peer may have under way over all streams.

        They hold from the first frame on: a server's INITIAL_WINDOW_SIZE below FIRST_WINDOW would be broken by honest
        clients that have not heard of it yet.
        """
        super().__init__(client=client, settings=settings, window_bytes=window_bytes)
        self._now = now
        self._settings = settings
        self._budgets = Budgets(now)
        self._reader = FrameReader(preface=not client)
        self.greeted = False
        self._window_bytes = self._receive_window = window_bytes
        self._stream_send_window = FIRST_WINDOW
        self._gathering = Gathering(decoder)

    # What comes in

    def receive(self, received: bytes, now: float) -> None:
        """Take what came, at the time `now` (seconds, of a clock that only goes forward)."""
        if self.ended is not None:
            return
        self._now = now
        try:
            for kind, flags, stream_id, payload in self._reader.frames(received):
                try:
                    self._frame(kind, flags, stream_id, payload)
                except StreamFaultError as fault:
                    self._spend(Budget.RESETS)
                    self._break_stream(fault)
                if self.ended is not None:
                    break
        except ConnectionFaultError as fault:
            self.end(fault.code, str(fault))
        if self.ended is not None:
            self._reader.rest = b""

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        gathering = self._gathering.stream_id
        if gathering is not None and (kind != FrameType.CONTINUATION or stream_id != gathering):
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted")
        if not self.greeted and (kind != FrameType.SETTINGS or flags & ACK):
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if kind >= len(RULES):
            self._spend(Budget.CONTROL)
            return
        rule = RULES[kind]
        if rule.place != Place.EITHER and (stream_id != 0) != (rule.place == Place.STREAM):
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, f"{FrameType(kind).name} on stream {stream_id}")
        size = len(payload)
        if size < rule.least_bytes or (rule.exact_bytes is not None and size != rule.exact_bytes):
            if rule.ends_connection:
                raise ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, f"{FrameType(kind).name} of {size} bytes")
            raise StreamFaultError(stream_id, ErrorCode.FRAME_SIZE_ERROR, f"{FrameType(kind).name} of {size} bytes")
        budget = SPENDS.get(kind)  # type: ignore[call-overload]
        if budget is not None:
            self._spend(budget)
        self._TAKE[kind](self, flags, stream_id, payload)

    def _data(self, flags: int, stream_id: int, payload: bytes) -> None:
        flow_bytes = len(payload)
        self._receive_window -= flow_bytes
        if self._receive_window < 0:
            raise ConnectionFaultError(ErrorCode.FLOW_CONTROL_ERROR, "more than the connection's window")
        if self._receive_window < self._window_bytes // 2:
            self.output += frame(FrameType.WINDOW_UPDATE, 0, 0, U32.pack(self._window_bytes - self._receive_window))
            self._receive_window = self._window_bytes
        if flags & PADDED:
            payload = without_padding(payload)
        ends = bool(flags & END_STREAM)
        if len(payload) < SMALL_DATA_BYTES and not ends:
            self._spend(Budget.SMALL_DATA if payload else Budget.CONTROL)
        stream = self.streams.get(stream_id)
        if stream is None or stream.state >= State.HALF_CLOSED_REMOTE:
            self._judge(FrameType.DATA, stream_id)
            return
        stream.receive_window -= flow_bytes
        if stream.receive_window < 0:
            raise StreamFaultError(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "more than the stream's window")
        if ends:
            self._end_received(stream)
        self._data_came(stream, payload, ends=ends)

    def _headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._gathered(self._gathering.begin(flags, stream_id, payload))

    def _continuation(self, flags: int, stream_id: int, payload: bytes) -> None:  # noqa: ARG002
        self._gathered(self._gathering.go_on(flags, payload))

    def _gathered(self, gathered: Gathered[H] | None) -> None:
        if gathered is None:
            return
        stream_id, headers, ends = gathered
        stream = self.streams.get(stream_id)
        if stream is not None and stream.state < State.HALF_CLOSED_REMOTE:
            if ends:
                self._end_received(stream)
            self._headers_came(stream, headers, ends=ends)
        elif stream is None and stream_id > self.highest_stream_id and not self._client:
            self._open_for_peer(stream_id, headers, ends=ends)
        else:
            self._judge(FrameType.HEADERS, stream_id)

    def _open_for_peer(self, stream_id: int, headers: H, *, ends: bool) -> None:
        if stream_id % 2 == 0:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "a client's streams are odd")
        self.highest_stream_id = stream_id
        self._budgets.stream_opened()
        stream = self._new_stream(stream_id)
        if ends:
            stream.state = State.HALF_CLOSED_REMOTE
        self._stream_opened(stream, headers, ends=ends)

    def _priority(self, flags: int, stream_id: int, payload: bytes) -> None:  # noqa: ARG002
        check_priority(stream_id, payload)

    def _reset(self, flags: int, stream_id: int, payload: bytes) -> None:  # noqa: ARG002
        stream = self.streams.pop(stream_id, None)
        if stream is None:
            self._judge(FrameType.RST_STREAM, stream_id)
            return
        stream.state = State.CLOSED
        self._reset_came(stream, U32.unpack(payload)[0])

    def _settings_frame(self, flags: int, stream_id: int, payload: bytes) -> None:  # noqa: ARG002
        if len(payload) % 6 or (flags & ACK and payload):
            raise ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
        if flags & ACK:
            return
        if len(payload) > SETTINGS_BYTES:
            raise ConnectionFaultError(ErrorCode.ENHANCE_YOUR_CALM, f"SETTINGS of {len(payload)} bytes")
        for name, value in read_settings(payload):
            self._set(name, value)
        self.greeted = True
        self.output += frame(FrameType.SETTINGS, ACK, 0)
        self._settings_came()

    def _set(self, name: int, value: int) -> None:
        lowest, highest, code = SETTINGS_RANGES.get(name, (0, value, ErrorCode.NO_ERROR))  # type: ignore[call-overload]
        if not lowest <= value <= highest:
            raise ConnectionFaultError(code, f"{Setting(name).name} of {value}")
        if name == Setting.MAX_FRAME_SIZE:
            self.peer_frame_bytes = value
        elif name == Setting.INITIAL_WINDOW_SIZE:
            change = value - self._stream_send_window
            self._stream_send_window = value
            for stream in self.streams.values():
                stream.send_window += change
                if stream.send_window > U31:
                    raise ConnectionFaultError(ErrorCode.FLOW_CONTROL_ERROR, "a window over 2^31 - 1")
        else:
            self._setting_came(name, value)

    def _push(self, flags: int, stream_id: int, payload: bytes) -> None:  # noqa: ARG002
        raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "nothing may be pushed here")

    def _ping(self, flags: int, stream_id: int, payload: bytes) -> None:  # noqa: ARG002
        if not flags & ACK:
            self.output += frame(FrameType.PING, ACK, 0, payload)

    def _goaway(self, flags: int, stream_id: int, payload: bytes) -> None:  # noqa: ARG002
        self._goaway_came(*read_goaway(payload))

    def _window_update(self, flags: int, stream_id: int, payload: bytes) -> None:  # noqa: ARG002
        increment = U32.unpack(payload)[0] & U31
        if not stream_id:
            if not increment:
                raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            self.send_window += increment
            if self.send_window > U31:
                raise ConnectionFaultError(ErrorCode.FLOW_CONTROL_ERROR, "a window over 2^31 - 1")
            self._window_grew(None)
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            self._judge(FrameType.WINDOW_UPDATE, stream_id)
            return
        if not increment:
            raise StreamFaultError(stream_id, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        stream.send_window += increment
        if stream.send_window > U31:
            raise StreamFaultError(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "a window over 2^31 - 1")
        self._window_grew(stream)

    _TAKE = (
        _data,
        _headers,
        _priority,
        _reset,
        _settings_frame,
        _push,
        _ping,
        _goaway,
        _window_update,
        _continuation,
    )
    """What takes a frame, by its type."""

    # States and faults

    def _judge(self, kind: FrameType, stream_id: int) -> None:
        """What becomes of a frame that its stream's state does not expect."""
        stream = self.streams.get(stream_id)
        if stream is None and stream_id in self._reset_streams:
            verdict = CLOSED_EARLY[kind]
        elif stream is not None:
            verdict = RECEIVED[stream.state][kind]
        else:
            verdict = RECEIVED[State.IDLE if self._is_idle(stream_id) else State.CLOSED][kind]
        reason = f"{kind.name} on stream {stream_id}"
        if verdict.ends_connection:
            raise ConnectionFaultError(verdict.code, reason)
        if verdict.code != ErrorCode.NO_ERROR:
            raise StreamFaultError(stream_id, verdict.code, reason)

    def _is_idle(self, stream_id: int) -> bool:
        return stream_id > self.highest_stream_id or stream_id % 2 == 0  # nobody opens even ones: nothing is pushed

    def _break_stream(self, fault: StreamFaultError) -> None:
        stream = self.streams.get(fault.stream_id)
        if stream is None and self._is_idle(fault.stream_id):  # nothing to reset (5.1)
            raise ConnectionFaultError(fault.code, str(fault)) from fault
        if stream is not None:
            self.reset(stream, fault.code)
            self._reset_came(stream, fault.code)
        elif self.ended is None:
            self.output += frame(FrameType.RST_STREAM, 0, fault.stream_id, U32.pack(fault.code))

    def _spend(self, budget: Budget) -> None:
        if not self._budgets.spend(budget, self._now):
            raise ConnectionFaultError(ErrorCode.ENHANCE_YOUR_CALM, f"too many frames: {budget.name.lower()}")

    def _new_stream(self, stream_id: int) -> Stream:
        stream = Stream(
            stream_id, self._stream_send_window, self._settings.get(Setting.INITIAL_WINDOW_SIZE, FIRST_WINDOW)
        )
        self.streams[stream_id] = stream
        return stream

    def _end_received(self, stream: Stream) -> None:
        stream.state = AFTER_END_RECEIVED[stream.state]
        if stream.state is State.CLOSED:
            del self.streams[stream.id]

    # What the role does with what came. It must not raise anything but StreamFaultError, and must not wait.

    def _stream_opened(self, stream: Stream, headers: H, *, ends: bool) -> None:
        """A client began a stream with its headers."""

    def _headers_came(self, stream: Stream, headers: H, *, ends: bool) -> None:
        """A response's headers, or trailers of either side."""

    def _data_came(self, stream: Stream, payload: bytes, *, ends: bool) -> None:
        """DATA, without its padding. `stream.receive_window` has shrunk already."""

    def _reset_came(self, stream: Stream, code: int) -> None:
        """The stream was reset: by the peer, or here for the peer's fault."""

    def _window_grew(self, stream: Stream | None) -> None:
        """More may be sent: on one stream, or on all that wait (None)."""

    def _settings_came(self) -> None:
        """The peer's settings were taken over; the first time: it speaks HTTP/2."""

    def _setting_came(self, name: int, value: int) -> None:
        """A setting that frames and windows do not depend on."""

    def _goaway_came(self, last_stream_id: int, code: int, text: bytes) -> None:
        """The peer says goodbye."""
