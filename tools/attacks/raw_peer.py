"""A blocking HTTP/2 peer that sends whatever it is told to, and tells what came back.

Nothing keeps it from breaking the rules. Only what the server answers is read by the rules, and no more of it than a
check wants to know.
"""

import math
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, Self

from attrs import frozen
from jh2.hpack import Decoder, HPACKError

from attacks.raw_http2 import (
    ACK,
    END_HEADERS,
    END_STREAM,
    FIRST_WINDOW,
    FRAME_BYTES,
    HEADER,
    HEADER_BYTES,
    PREFACE,
    Kind,
    Setting,
    call_block,
    frame,
    headers_frame,
    message,
    settings,
    window_update,
)

RECEIVE_BYTES: Final = 256 * 1024
KEPT_BYTES: Final = 64 * 1024
"""Of the answer on one stream; `data_bytes` counts the rest."""
PATIENCE_S: Final = 10.0
"""Of `connect` and of reading, where the caller names no time."""


@frozen
class Goodbye:
    """What a GOAWAY said."""

    last_stream_id: int
    code: int
    debug: bytes


class RawPeer:
    """One connection to a server, blocking. What came is in its fields, by stream.

    `reads=False` makes a peer that never reads its socket; `preface=False` one that has sent nothing yet.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        wanted: dict[int, int] | None = None,
        preface: bool = True,
        reads: bool = True,
        receive_buffer_bytes: int | None = None,
    ) -> None:
        self.socket = socket.socket()
        if receive_buffer_bytes is not None:  # before connecting: it decides the window that TCP offers
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        try:
            self.socket.settimeout(PATIENCE_S)
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(0)
        self.reads = reads
        self._gives_no_window = (wanted or {}).get(Setting.INITIAL_WINDOW_SIZE) == 0
        self.returns_credit = True
        """Whether the bytes of DATA are given back at once."""
        self.headers: dict[int, dict[bytes, bytes]] = {}
        self.data: dict[int, bytearray] = {}
        self.data_bytes = 0
        self.resets: dict[int, int] = {}
        self.over: set[int] = set()
        self.pongs = 0
        self.pings = 0
        """Of the server. They are never answered."""
        self.credit: dict[int, int] = {}
        """What the server has given on each stream, 0 for the connection, on top of the first windows."""
        self.sent: dict[int, int] = {}
        """Of DATA that `upload` has sent, likewise."""
        self.server_settings: dict[int, int] = {}
        self.goodbye: Goodbye | None = None
        self.closed = False
        """The server has closed the connection, or it is lost."""
        self.next_stream_id = 1
        self._received = bytearray()
        self._decoder = Decoder()
        self._block = bytearray()
        self._answers = bytearray()
        self._greeted = preface
        if preface:
            self.socket.send(PREFACE + settings(wanted))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Sending

    def send(self, content: bytes, until_s: float = math.inf) -> bool:
        """Send it all, and read meanwhile. False when the connection is gone, or at `until_s` (monotonic)."""
        rest = memoryview(content)
        until_s = min(until_s, time.monotonic() + 60 * PATIENCE_S)
        while rest and not self.closed:
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return False
            readable, writable = self._wait(min(left_s, 0.1), writing=True)
            if readable:
                self._take()
            if writable:
                try:
                    rest = rest[self.socket.send(rest) :]
                except BlockingIOError:
                    continue
                except OSError:
                    self.closed = True
        if not rest:
            self._answer()
        return not rest

    def new_stream(self) -> int:
        """The next id of a stream."""
        stream_id, self.next_stream_id = self.next_stream_id, self.next_stream_id + 2
        return stream_id

    def start(self, path: str, extra: Iterable[tuple[bytes | str, bytes | str]] = (), *, end: bool = False) -> int:
        """The headers of a call; its stream."""
        stream_id = self.new_stream()
        self.send(headers_frame(stream_id, call_block(path, extra), end_stream=end))
        return stream_id

    def call(self, path: str, content: bytes = b"", extra: Iterable[tuple[bytes | str, bytes | str]] = ()) -> int:
        """A whole unary request of a few bytes; its stream."""
        stream_id = self.new_stream()
        body = frame(Kind.DATA, END_STREAM, stream_id, message(content))
        self.send(headers_frame(stream_id, call_block(path, extra)) + body)
        return stream_id

    def upload(self, stream_id: int, content: bytes, until_s: float = math.inf) -> int:
        """Send as much of it as the server's windows let through now, as DATA; how much that was."""
        window = self.server_settings.get(Setting.INITIAL_WINDOW_SIZE, FIRST_WINDOW) + self._balance(stream_id)
        room = max(min(window, FIRST_WINDOW + self._balance(0), len(content)), 0)
        for at in range(0, room, FRAME_BYTES):
            self.send(frame(Kind.DATA, 0, stream_id, content[at : min(at + FRAME_BYTES, room)]), until_s)
        for each in (0, stream_id):
            self.sent[each] = self.sent.get(each, 0) + room
        return room

    def _balance(self, stream_id: int) -> int:
        return self.credit.get(stream_id, 0) - self.sent.get(stream_id, 0)

    # Reading

    def take(self) -> None:
        """Take what has come, and answer it; does not wait."""
        self._take()
        self._answer()

    def _take(self) -> None:
        try:
            content = b"" if self.closed else self.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            content = b""
        self.closed = not content
        self._received += content
        start = 0
        while len(self._received) - start >= HEADER_BYTES:
            high, low, kind, flags, stream_id = HEADER.unpack_from(self._received, start)
            stop = start + HEADER_BYTES + (high << 16 | low)
            if stop > len(self._received):
                break
            payload = bytes(self._received[start + HEADER_BYTES : stop])
            self._answers += self._handle(kind, flags, stream_id, payload)
            start = stop
        del self._received[:start]

    def _answer(self) -> None:
        """Send what is due: acknowledgements and credit. Never within another frame, nor before the preface."""
        if self._greeted and self._answers and not self.closed:
            with suppress(OSError):  # a few bytes; a full socket loses them, and an attacker does not care
                self.socket.send(self._answers)
        self._answers.clear()

    def _wait(self, timeout_s: float, *, writing: bool = False) -> tuple[bool, bool]:
        """Wait until it can be read (if it ever is) or written; which of the two."""
        wanted = (select.POLLIN if self.reads else 0) | (select.POLLOUT if writing else 0)
        poll = select.poll()
        poll.register(self.socket, wanted)
        ready = sum(event for _, event in poll.poll(math.ceil(timeout_s * 1_000)))
        broken = bool(ready & (select.POLLERR | select.POLLHUP))
        return bool(ready & select.POLLIN) or (broken and self.reads), bool(ready & select.POLLOUT) or broken

    def until(self, is_so: Callable[[], bool], timeout_s: float = PATIENCE_S) -> bool:
        """Read until it is so, the connection is gone, or the time is over; whether it is so."""
        end_s = time.monotonic() + timeout_s
        while not is_so() and not self.closed:
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                break
            if self._wait(left_s)[0]:
                self.take()
        return is_so()

    def read_for(self, seconds: float) -> None:
        """Read for so long, or until the connection is gone."""
        self.until(lambda: False, seconds)

    def ends(self, timeout_s: float = PATIENCE_S) -> bool:
        """Whether the server closes the connection in time."""
        return self.until(lambda: self.closed, timeout_s) or self.closed

    def hears_data(self, timeout_s: float = PATIENCE_S) -> bool:
        """Whether more DATA comes in time."""
        before = self.data_bytes
        return self.until(lambda: self.data_bytes > before, timeout_s)

    def status(self, stream_id: int, timeout_s: float = PATIENCE_S) -> int | None:
        """The gRPC status of a call, once it is over; None when there is none in time."""
        self.until(lambda: stream_id in self.over, timeout_s)
        status = self.headers.get(stream_id, {}).get(b"grpc-status")
        return None if status is None else int(status)

    def answers(self, timeout_s: float = PATIENCE_S) -> bool:
        """Whether the server still answers a call on this connection, also on one that gives no window."""
        stream_id = self.call("Version")
        if self._gives_no_window:
            self.send(window_update(stream_id, FIRST_WINDOW))
        return self.status(stream_id, timeout_s) == 0

    def is_heard(self, timeout_s: float = PATIENCE_S) -> bool:
        """Whether the server has taken all that was sent: it answers a PING."""
        pongs = self.pongs
        self.send(frame(Kind.PING, payload=b"all seen"))
        return self.until(lambda: self.pongs > pongs, timeout_s)

    def _decoded(self, block: bytes) -> Iterable[tuple[bytes, bytes]]:
        try:
            return [(bytes(name), bytes(text)) for name, text in self._decoder.decode(block, raw=True)]
        except HPACKError:  # for a check, as good as no headers; an attacker may have asked for this
            return []

    # The end

    def close(self) -> None:
        """End the connection in the usual way."""
        self.closed = True
        self.socket.close()

    def abort(self) -> None:
        """End the connection with TCP's RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def _handle(self, kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
        match kind:
            case Kind.HEADERS | Kind.CONTINUATION:
                self._block += payload
                if flags & END_HEADERS:
                    decoded = self._decoded(bytes(self._block))
                    self.headers.setdefault(stream_id, {}).update(decoded)
                    self._block.clear()
                if kind == Kind.HEADERS and flags & END_STREAM:
                    self.over.add(stream_id)
            case Kind.DATA:
                self.data_bytes += len(payload)
                kept = self.data.setdefault(stream_id, bytearray())
                kept += payload[: KEPT_BYTES - len(kept)]
                if flags & END_STREAM:
                    self.over.add(stream_id)
                if self.returns_credit and payload:
                    size = len(payload)
                    return window_update(0, size) + (b"" if flags & END_STREAM else window_update(stream_id, size))
            case Kind.RST_STREAM:
                self.resets[stream_id] = int.from_bytes(payload, "big")
                self.over.add(stream_id)
            case Kind.SETTINGS if not flags & ACK:
                self.server_settings.update(struct.iter_unpack(">HI", payload))
                return frame(Kind.SETTINGS, ACK)
            case Kind.WINDOW_UPDATE:
                self.credit[stream_id] = self.credit.get(stream_id, 0) + int.from_bytes(payload, "big")
            case Kind.PING:
                self.pongs += flags & ACK
                self.pings += not flags & ACK
            case Kind.GOAWAY:
                last_stream_id, code = struct.unpack_from(">II", payload)
                self.goodbye = Goodbye(last_stream_id, code, payload[8:])
        return b""
