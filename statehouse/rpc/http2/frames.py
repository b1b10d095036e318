"""HTTP/2's frames as a table: their types, flags, sizes and places; settings and error codes (RFC 9113, 6, 7, 11).

A frame is `length u24 | type u8 | flags u8 | reserved bit and stream u31 | payload`. `RULES` says for each type
where it may stand and how long it must be; what a type means is the work of `connection.py`.
"""

from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

__all__ = [
    "ACK",
    "CONNECTION_PREFACE",
    "END_HEADERS",
    "END_STREAM",
    "FRAME_HEADER",
    "FRAME_HEADER_BYTES",
    "PADDED",
    "PRIORITY",
    "RULES",
    "SETTINGS_RANGES",
    "U31",
    "U32",
    "ErrorCode",
    "FrameType",
    "Place",
    "Rule",
    "Setting",
    "frame",
    "goaway_payload",
    "header_frames",
    "read_goaway",
    "read_settings",
    "settings_payload",
]

CONNECTION_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first, so that no HTTP/1 server takes it for a request (3.4)."""

FRAME_HEADER: Final = Struct(">HBBBL")
"""Length (its upper 16 bits, its lower 8), type, flags, stream."""
FRAME_HEADER_BYTES: Final = FRAME_HEADER.size
U32: Final = Struct(">L")
_SETTING: Final = Struct(">HL")
_GOAWAY: Final = Struct(">LL")

U31: Final = 2**31 - 1
"""The highest stream id, and the largest window (4.1, 6.9.1)."""

# Flags. Their bits mean different things on different types.
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY: Final = 0x20


class FrameType(IntEnum):
    """Section 6; other types are ignored (4.1)."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class ErrorCode(IntEnum):
    """Section 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Setting(IntEnum):
    """Section 6.5.2; other settings are ignored."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


SETTINGS_RANGES: Final = {
    Setting.ENABLE_PUSH: (0, 1, ErrorCode.PROTOCOL_ERROR),
    Setting.INITIAL_WINDOW_SIZE: (0, U31, ErrorCode.FLOW_CONTROL_ERROR),
    Setting.MAX_FRAME_SIZE: (2**14, 2**24 - 1, ErrorCode.PROTOCOL_ERROR),
}
"""The lowest and highest value of a setting, and the error that another one is."""


class Place(IntEnum):
    """Where a frame belongs."""

    CONNECTION = 0
    STREAM = 1
    EITHER = 2


class Rule(NamedTuple):
    """What holds for all frames of a type."""

    place: Place
    exact_bytes: int | None = None
    """The length that its payload must have."""
    least_bytes: int = 0
    ends_connection: bool = True
    """Whether a wrong length ends the connection, or only the stream (4.2)."""


RULES: Final[tuple[Rule, ...]] = (
    Rule(Place.STREAM),  # DATA
    Rule(Place.STREAM),  # HEADERS
    Rule(Place.STREAM, exact_bytes=5, ends_connection=False),  # PRIORITY
    Rule(Place.STREAM, exact_bytes=4),  # RST_STREAM
    Rule(Place.CONNECTION),  # SETTINGS: a multiple of 6, or nothing with ACK
    Rule(Place.STREAM, least_bytes=4),  # PUSH_PROMISE
    Rule(Place.CONNECTION, exact_bytes=8),  # PING
    Rule(Place.CONNECTION, least_bytes=8),  # GOAWAY
    Rule(Place.EITHER, exact_bytes=4),  # WINDOW_UPDATE
    Rule(Place.STREAM),  # CONTINUATION
)


def frame(kind: FrameType, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame. The payload's length is the caller's care: at most the peer's MAX_FRAME_SIZE."""
    size = len(payload)
    return FRAME_HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream_id) + payload


def header_frames(stream_id: int, block: bytes, max_frame_bytes: int, *, end_stream: bool) -> bytes:
    """A header block as one HEADERS frame and as many CONTINUATIONs as it needs (6.2, 6.10)."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= max_frame_bytes:
        return frame(FrameType.HEADERS, flags | END_HEADERS, stream_id, block)
    pieces = [block[at : at + max_frame_bytes] for at in range(0, len(block), max_frame_bytes)]
    frames = [frame(FrameType.HEADERS, flags, stream_id, pieces[0])]
    frames += [frame(FrameType.CONTINUATION, 0, stream_id, piece) for piece in pieces[1:-1]]
    frames.append(frame(FrameType.CONTINUATION, END_HEADERS, stream_id, pieces[-1]))
    return b"".join(frames)


def settings_payload(settings: dict[Setting, int]) -> bytes:
    """The payload of a SETTINGS frame (6.5.1)."""
    return b"".join(_SETTING.pack(name, value) for name, value in settings.items())


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The names and values of a SETTINGS payload, whose length is a multiple of 6."""
    return list(_SETTING.iter_unpack(payload))


def goaway_payload(last_stream_id: int, code: ErrorCode, debug: bytes) -> bytes:
    """The payload of a GOAWAY frame (6.8)."""
    return _GOAWAY.pack(last_stream_id, code) + debug


def read_goaway(payload: bytes) -> tuple[int, int, bytes]:
    """The last stream that the peer looks at, its error code, and what it says besides."""
    last_stream_id, code = _GOAWAY.unpack_from(payload)
    return last_stream_id & U31, code, payload[_GOAWAY.size :]
