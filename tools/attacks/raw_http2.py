"""HTTP/2 frames, header blocks and gRPC messages made by hand; nothing here knows a rule that it could not break.

A frame is what `frame` packs, a header block is bytes. Header blocks are made of literals that are never indexed and
not Huffman coded (RFC 7541, 6.2.3), so that they are the same on every connection and can be made once.
"""

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SERVICE: Final = "/statehouse.v1.StatehouseService/"
HEADER_BYTES: Final = 9
FRAME_BYTES: Final = 16_384
"""The longest payload that needs no leave of the peer."""
FIRST_WINDOW: Final = 65_535
"""A window that nobody has changed."""
LARGEST_WINDOW: Final = 2**31 - 1

ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8

HEADER: Final = struct.Struct(">BHBBI")


class Kind(IntEnum):
    """Frame types, RFC 9113, 6."""

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


class Setting(IntEnum):
    """Settings, RFC 9113, 6.5.2."""

    HEADER_TABLE_SIZE = 1
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class Code(IntEnum):
    """Error codes, RFC 9113, 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


# Frames


def frame(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"") -> bytes:
    """A frame with its header; `kind` may be a type that does not exist."""
    length = len(payload)
    return HEADER.pack(length >> 16, length & 0xFFFF, kind, flags, stream_id) + payload


def settings(values: dict[int, int] | None = None) -> bytes:
    """A SETTINGS frame."""
    pairs = (values or {}).items()
    return frame(Kind.SETTINGS, payload=b"".join(struct.pack(">HI", name, value) for name, value in pairs))


def reset(stream_id: int, code: int = Code.CANCEL) -> bytes:
    """A RST_STREAM frame."""
    return frame(Kind.RST_STREAM, 0, stream_id, struct.pack(">I", code))


def window_update(stream_id: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the connection."""
    return frame(Kind.WINDOW_UPDATE, 0, stream_id, struct.pack(">I", increment))


def headers_frame(stream_id: int, block: bytes, *, end_stream: bool = False) -> bytes:
    """HEADERS, and as many CONTINUATION frames as the block needs."""
    pieces = [block[at : at + FRAME_BYTES] for at in range(0, len(block), FRAME_BYTES)] or [b""]
    frames = []
    for number, piece in enumerate(pieces):
        flags = END_HEADERS if piece is pieces[-1] else 0
        if number == 0:
            frames.append(frame(Kind.HEADERS, flags | (END_STREAM if end_stream else 0), stream_id, piece))
        else:
            frames.append(frame(Kind.CONTINUATION, flags, stream_id, piece))
    return b"".join(frames)


# Header blocks


def integer(value: int, prefix_bits: int, first: int = 0) -> bytes:
    """An integer in HPACK's form, RFC 7541, 5.1; `first` has the bits before the prefix."""
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes([first | value])
    encoded, value = bytearray([first | limit]), value - limit
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def literal(name: bytes | str, value: bytes | str, first: int = 0x10) -> bytes:
    """A header with a literal name; never indexed, unless `first` is 0x40 (which indexes it)."""
    raw = [part.encode() if isinstance(part, str) else part for part in (name, value)]
    return bytes([first]) + b"".join(integer(len(part), 7) + part for part in raw)


def call_block(path: str, extra: Iterable[tuple[bytes | str, bytes | str]] = ()) -> bytes:
    """The headers of a gRPC call. A path without a slash is a call of Statehouse's service."""
    plain = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path if "/" in path or not path else SERVICE + path),
        (":authority", "statehouse"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    return b"".join(literal(name, value) for name, value in [*plain, *extra])


# Messages


def message(content: bytes, flag: int = 0, length: int | None = None) -> bytes:
    """A gRPC message with its five bytes before it; `length` may lie."""
    return struct.pack(">BI", flag, len(content) if length is None else length) + content


def text_field(number: int, text: str) -> bytes:
    """A string field of a protobuf message."""
    return varint(number << 3 | 2) + varint(len(text.encode())) + text.encode()


def varint(value: int) -> bytes:
    """An integer of protobuf."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
