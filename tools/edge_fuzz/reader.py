"""Reads what a connection sends, with nothing of the connection's own code: RFC 9113's rules for a sender, one by one.

A table of its own says what a frame may look like. Every breach is an `OutputError`.
"""

import struct
from typing import Final, NamedTuple

from jh2._hazmat import Decoder

__all__ = ["OutputError", "OutputReader"]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER: Final = struct.Struct(">BHBBL")
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4


class _Form(NamedTuple):
    flags: int  # that it may have
    on_stream: bool | None  # None: both
    exact_bytes: int | None = None


FORMS: Final = {
    DATA: _Form(END_STREAM, on_stream=True),
    HEADERS: _Form(END_STREAM | END_HEADERS, on_stream=True),
    RST_STREAM: _Form(0, on_stream=True, exact_bytes=4),
    SETTINGS: _Form(ACK, on_stream=False),
    PING: _Form(ACK, on_stream=False, exact_bytes=8),
    GOAWAY: _Form(0, on_stream=False),
    WINDOW_UPDATE: _Form(0, on_stream=None, exact_bytes=4),
    CONTINUATION: _Form(END_HEADERS, on_stream=True),
}


class OutputError(Exception):
    """The connection sent what no peer should have to read."""


class OutputReader:
    """Of one connection."""

    def __init__(self, *, client: bool, frame_bytes: int) -> None:
        """`frame_bytes` is the longest frame that the peer takes."""
        self._client = client
        self._frame_bytes = frame_bytes
        self._begun = False
        self._decoder = Decoder(1 << 20)
        self._block: bytes | None = None
        self._block_stream = 0
        self._headed: set[int] = set()  # streams that HEADERS were sent on
        self._ended: set[int] = set()  # and END_STREAM
        self._reset: set[int] = set()
        self._last_kind: int | None = None

    @property
    def says_goodbye(self) -> bool:
        """Whether the last frame was a GOAWAY."""
        return self._last_kind == GOAWAY

    def read(self, output: bytes, highest_stream_id: int) -> int:
        """How many frames it is; `highest_stream_id` is the last stream that was opened."""
        at = count = 0
        if self._client and not self._begun and output:
            if not output.startswith(PREFACE):
                raise OutputError("no preface")
            at = len(PREFACE)
        while at < len(output):
            if at + HEADER.size > len(output):
                raise OutputError("half a frame's header")
            high, low, kind, flags, stream_id = HEADER.unpack_from(output, at)
            size = high << 16 | low
            at += HEADER.size + size
            if at > len(output):
                raise OutputError("half a frame")
            if size > self._frame_bytes:
                raise OutputError(f"a frame of {size} bytes for a peer that takes {self._frame_bytes}")
            if stream_id > highest_stream_id:
                raise OutputError(f"stream {stream_id}, above {highest_stream_id}")
            self._frame(kind, flags, stream_id, output[at - size : at])
            count += 1
        return count

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        what = f"type {kind}, flags {flags:#x}, stream {stream_id}, {len(payload)} bytes"
        form = FORMS.get(kind)
        if form is None or flags & ~form.flags or (form.exact_bytes not in (None, len(payload))):
            raise OutputError(f"a frame that nobody sends: {what}")
        if form.on_stream is not None and (stream_id != 0) != form.on_stream:
            raise OutputError(f"a frame out of place: {what}")
        if stream_id and stream_id % 2 == 0:
            raise OutputError(f"a stream that nobody opened: {what}")
        if self._last_kind is None and (kind != SETTINGS or flags & ACK):
            raise OutputError(f"not SETTINGS first: {what}")
        if (kind == CONTINUATION) != (self._block is not None) or (
            self._block is not None and stream_id != self._block_stream
        ):
            raise OutputError(f"a header block in pieces: {what}")
        self._last_kind = kind
        self._begun = True
        if kind == SETTINGS and (len(payload) % 6 or (flags & ACK and payload)):
            raise OutputError(f"no settings: {what}")
        if kind == GOAWAY and len(payload) < 8:
            raise OutputError(f"no goodbye: {what}")
        if kind == WINDOW_UPDATE and not 0 < int.from_bytes(payload, "big") < 2**31:
            raise OutputError(f"no increment: {what}")
        if kind in (HEADERS, DATA, CONTINUATION):
            self._on_stream(kind, flags, stream_id, payload, what)
        elif kind == RST_STREAM:
            self._reset.add(stream_id)
        elif kind == WINDOW_UPDATE and stream_id in self._reset:
            raise OutputError(f"on a stream that was reset: {what}")

    def _on_stream(self, kind: int, flags: int, stream_id: int, payload: bytes, what: str) -> None:
        if stream_id in self._reset or (stream_id in self._ended and kind != CONTINUATION):
            raise OutputError(f"on a stream that is over: {what}")
        if kind == DATA and stream_id not in self._headed:
            raise OutputError(f"DATA before HEADERS: {what}")
        if kind != CONTINUATION and flags & END_STREAM:
            self._ended.add(stream_id)
        if kind == DATA:
            return
        self._headed.add(stream_id)
        block = payload if self._block is None else self._block + payload
        if not flags & END_HEADERS:
            self._block, self._block_stream = block, stream_id
            return
        self._block = None
        self._decoder.decode(block, True)  # noqa: FBT003 - as bytes; raises for what is no header block
