"""As much of HTTP/2's frames (RFC 9113) and gRPC's as a load on a bare socket needs. It owns bytes, and no socket."""

from struct import Struct
from typing import Final

FIRST_WINDOW_BYTES: Final = 65_535  # 6.9.2
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS, PADDED = 0x1, 0x1, 0x4, 0x8
INITIAL_WINDOW_SIZE: Final = 4

HEAD: Final = Struct(">HBBBL")  # length (2 bytes and 1), type, flags, stream
LENGTH: Final = Struct(">xL")  # gRPC's: not compressed, length


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """A frame in bytes."""
    return HEAD.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream_id) + payload


def request_headers(name: str, authority: str) -> bytes:
    """A call's headers, in HPACK without a table and without Huffman's code (RFC 7541, 6.2.2): any server reads it."""

    def text(value: str) -> bytes:
        return bytes([len(value)]) + value.encode("ascii")

    return b"".join(
        [
            b"\x83\x86",  # :method POST, :scheme http
            b"\x04" + text(f"/statehouse.v1.StatehouseService/{name}"),
            b"\x01" + text(authority),
            b"\x0f\x10" + text("application/grpc"),
            b"\x00" + text("te") + text("trailers"),
        ]
    )


def more_window(stream_id: int, size_bytes: int) -> bytes:
    """Let the peer send so much more."""
    return frame(WINDOW_UPDATE, 0, stream_id, size_bytes.to_bytes(4, "big"))


def opening(window_bytes: int) -> bytes:
    """What a client says first; the windows of the connection and of each stream are `window_bytes`."""
    settings = INITIAL_WINDOW_SIZE.to_bytes(2, "big") + window_bytes.to_bytes(4, "big")
    return PREFACE + frame(SETTINGS, 0, 0, settings) + more_window(0, window_bytes - FIRST_WINDOW_BYTES)


def call(stream_id: int, headers: bytes, request: bytes) -> bytes:
    """A whole request with one message."""
    message = LENGTH.pack(len(request)) + request
    return frame(HEADERS, END_HEADERS, stream_id, headers) + frame(DATA, END_STREAM, stream_id, message)
