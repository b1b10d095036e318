"""From HEADERS and CONTINUATION frames to one header list (RFC 9113, 6.2 and 6.10)."""

from typing import Final, Generic, NamedTuple, TypeVar

from statehouse.rpc.http2.faults import ConnectionFaultError
from statehouse.rpc.http2.frames import END_HEADERS, END_STREAM, PADDED, PRIORITY, U31, U32, ErrorCode
from statehouse.rpc.http2.header_blocks import BLOCK_BYTES, HeaderBlockError, HeaderDecoder

__all__ = ["Gathered", "Gathering", "check_priority", "without_padding"]

H = TypeVar("H")

CONTINUATIONS: Final = 64
"""Frames that one header block may take (CVE-2024-27316)."""
_PRIORITY_BYTES: Final = 5


class Gathered(NamedTuple, Generic[H]):
    """A header list that is whole."""

    stream_id: int
    headers: H
    ends: bool


class Gathering(Generic[H]):
    """The header block that is coming in. Nothing else may come between its frames."""

    def __init__(self, decoder: HeaderDecoder[H]) -> None:
        self.stream_id: int | None = None
        """Whose block is not yet whole."""
        self._decoder = decoder
        self._ends = False
        self._pieces: list[bytes] = []
        self._size_bytes = 0

    def begin(self, flags: int, stream_id: int, payload: bytes) -> Gathered[H] | None:
        """Take HEADERS; the list, if this was all of it."""
        if flags & PADDED:
            payload = without_padding(payload)
        if flags & PRIORITY:
            if len(payload) < _PRIORITY_BYTES:
                raise ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for its priority")
            check_priority(stream_id, payload)
            payload = payload[_PRIORITY_BYTES:]
        self._ends = bool(flags & END_STREAM)
        self._pieces, self._size_bytes = [], 0
        return self._add(flags, stream_id, payload)

    def go_on(self, flags: int, payload: bytes) -> Gathered[H] | None:
        """Take a CONTINUATION; the list, if it is whole now."""
        if self.stream_id is None:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        return self._add(flags, self.stream_id, payload)

    def _add(self, flags: int, stream_id: int, payload: bytes) -> Gathered[H] | None:
        self._pieces.append(payload)
        self._size_bytes += len(payload)
        if self._size_bytes > BLOCK_BYTES or len(self._pieces) > CONTINUATIONS:
            raise ConnectionFaultError(ErrorCode.ENHANCE_YOUR_CALM, "a header block without measure")
        if not flags & END_HEADERS:
            self.stream_id = stream_id
            return None
        self.stream_id = None
        block = payload if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces = []
        try:
            # Decoded whatever becomes of its stream: the table is the connection's.
            headers = self._decoder.decode(block)
        except HeaderBlockError as error:
            raise ConnectionFaultError(ErrorCode.COMPRESSION_ERROR, str(error)) from error
        return Gathered(stream_id, headers, self._ends)


def without_padding(payload: bytes) -> bytes:
    """The payload of a frame with PADDED (6.1)."""
    if not payload:
        raise ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without its length of padding")
    if payload[0] >= len(payload):
        raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]


def check_priority(stream_id: int, payload: bytes) -> None:
    """Refuse a stream that depends on itself: a stream's fault (RFC 7540, 5.3.1), but it may be idle still."""
    if U32.unpack_from(payload)[0] & U31 == stream_id:
        raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "a stream that depends on itself")
