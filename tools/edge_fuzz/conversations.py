"""What the fuzz sends: conversations that are valid, damaged ones, frames of chance and bytes of chance.

All of it follows from a `random.Random`, so that a seed repeats it. A conversation is a list of byte strings,
nearly always a frame each.
"""

import struct
import zlib
from random import Random
from typing import Final

from jh2._hazmat import Encoder

__all__ = ["Conversation", "conversation", "pieces"]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER: Final = struct.Struct(">BHBBL")
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
RECEIVE_BYTES: Final = 64 * 1024
"""The most that comes at once, as from a socket."""
LONGEST: Final = 400
FLOOD: Final = 1_500
"""Frames of a conversation, and of a flood: more than a budget has, but for that of window updates."""

_FLOODS: Final = (
    (DATA, 1, b""),
    (DATA, 1, b"x"),
    (PRIORITY, 3, b"\0\0\0\0\x10"),
    (SETTINGS, 0, b""),
    (SETTINGS, 0, b"\0\x01\0\0\0\0" * 32),
    (PING, 0, bytes(8)),
    (GOAWAY, 0, bytes(8)),
    (WINDOW_UPDATE, 0, b"\0\0\0\x01"),
    (WINDOW_UPDATE, 1, b"\0\0\0\x01"),
    (HEADERS, 3, b""),
    (CONTINUATION, 1, b"x" * 2_000),
    (42, 0, b"unknown"),
)
_PATHS: Final = (b"/statehouse.v1.StatehouseService/GetState", b"/s/m", b"/a/b/c", b"", b"*")
_FIELDS: Final = (
    (b"grpc-timeout", b"100m"),
    (b"grpc-timeout", b"soon"),
    (b"grpc-encoding", b"gzip"),
    (b"grpc-encoding", b"deflate"),
    (b"content-length", b"12"),
    (b"content-length", b"x"),
    (b"connection", b"close"),
    (b"x-upper\x00", b"a"),
    (b"te", b"gzip"),
    (b"key-bin", b"AAEC"),
    (b"x-long", b"v" * 9_000),
    (b":path", b"/late"),
    (b":status", b"200"),
)
_CALL: Final = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", _PATHS[0]),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
)
_MESSAGE: Final = struct.Struct(">BL")
_GZIP: Final = zlib.compressobj(wbits=31)
_ZIPPED: Final = _GZIP.compress(bytes(100_000)) + _GZIP.flush()
_MESSAGES: Final = (
    _MESSAGE.pack(0, 12) + b"twelve bytes",
    _MESSAGE.pack(0, 0),
    _MESSAGE.pack(0, 3_000) + bytes(3_000),
    _MESSAGE.pack(1, len(_ZIPPED)) + _ZIPPED,
    _MESSAGE.pack(0, 100_000) + bytes(10_000),
    _MESSAGE.pack(0, 1 << 31),
    _MESSAGE.pack(2, 1) + b"?",
    b"",
)
_USUAL: Final = _MESSAGES[0]


def _frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    size = len(payload)
    return HEADER.pack(size >> 16, size & 0xFFFF, kind, flags, stream_id) + payload


def _fields() -> list[tuple[bytes, bytes, bool]]:
    return [(name, value, False) for name, value in _CALL]


class Conversation:
    """One side of a valid conversation, to a client or to a server."""

    def __init__(self, chance: Random, *, to_client: bool) -> None:
        self._chance = chance
        self._to_client = to_client
        self._encoder = Encoder()
        self._next_id = 1
        self._open: list[int] = []

    def begin(self) -> list[bytes]:
        settings = b"".join(struct.pack(">HL", *each) for each in self._settings())
        return ([] if self._to_client else [PREFACE]) + [_frame(SETTINGS, 0, 0, settings)]

    def go_on(self) -> list[bytes]:
        """A call, most of the time; else what happens beside calls."""
        what = self._chance.random()
        if self._to_client:
            return self._response() if what < 0.7 else [self._beside()]
        if what < 0.5:
            return self._request()
        return [self._data()] if what < 0.7 else [self._beside()]

    def _request(self) -> list[bytes]:
        chance = self._chance
        stream_id, self._next_id = self._next_id, self._next_id + 2
        what = chance.random()
        path = _PATHS[0] if what < 0.8 else chance.choice(_PATHS)
        fields = _fields()
        if what >= 0.8:
            fields[2] = b":path", path, False
        if what >= 0.95:
            fields[0] = b":method", b"GET", False
        if chance.random() < 0.2:
            fields.append((*chance.choice(_FIELDS), chance.random() < 0.3))
        frames = self._headers(stream_id, fields, END_STREAM if what > 0.97 else 0)
        if chance.random() < 0.7:
            return [*frames, _frame(DATA, END_STREAM, stream_id, _USUAL)]
        self._open.append(stream_id)
        return frames

    def _data(self) -> bytes:
        if not self._open:
            return self._beside()
        at = self._chance.randrange(len(self._open))
        stream_id = self._open[at]
        if self._chance.random() < 0.2:
            del self._open[at]
            return _frame(RST_STREAM, 0, stream_id, b"\0\0\0\x08")
        flags = 0
        if self._chance.random() < 0.5:
            flags = END_STREAM
            del self._open[at]
        return self._padded(DATA, flags, stream_id, self._chance.choice(_MESSAGES))

    def _response(self) -> list[bytes]:
        chance = self._chance
        if self._open and chance.random() < 0.6:
            if chance.random() < 0.5:
                return [self._data()]
            stream_id = self._open.pop(chance.randrange(len(self._open)))
            return self._headers(stream_id, [(b"grpc-status", b"0", False)], END_STREAM)
        stream_id, self._next_id = self._next_id, self._next_id + 2
        self._open.append(stream_id)
        return self._headers(stream_id, [(b":status", b"200", False), (b"content-type", b"application/grpc", False)], 0)

    def _headers(self, stream_id: int, fields: list[tuple[bytes, bytes, bool]], flags: int) -> list[bytes]:
        block: bytes = self._encoder.encode(fields)
        if self._chance.random() < 0.9:
            return [self._padded(HEADERS, flags | END_HEADERS, stream_id, block)]
        cut, cut_again = sorted((self._chance.randrange(len(block) + 1), self._chance.randrange(len(block) + 1)))
        return [
            _frame(HEADERS, flags, stream_id, block[:cut]),
            _frame(CONTINUATION, 0, stream_id, block[cut:cut_again]),
            _frame(CONTINUATION, END_HEADERS, stream_id, block[cut_again:]),
        ]

    def _padded(self, kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
        if self._chance.random() < 0.9:
            return _frame(kind, flags, stream_id, payload)
        if kind == HEADERS and self._chance.random() < 0.5:
            flags |= WITH_PRIORITY
            payload = b"\0\0\0\0\x10" + payload
        padding = self._chance.randrange(256)
        return _frame(kind, flags | PADDED, stream_id, bytes((padding,)) + payload + bytes(padding))

    def flood(self) -> list[bytes]:
        """Much of what costs its sender nothing."""
        chance = self._chance
        if chance.random() < 0.2 and not self._to_client:  # CVE-2023-44487
            ids = range(1, 2 * FLOOD, 2)
            pairs = ((self._headers(each, _fields(), 0), _frame(RST_STREAM, 0, each, bytes(4))) for each in ids)
            return [frame for headers, reset in pairs for frame in (*headers, reset)]
        kind, stream_id, payload = chance.choice(_FLOODS)
        opened = self._headers(1, _fields(), 0)
        return [*opened, *[_frame(kind, 0, stream_id, payload)] * FLOOD]

    def _beside(self) -> bytes:
        chance = self._chance
        what = chance.random()
        stream_id = chance.choice((0, 0, *self._open[-3:]))
        if what < 0.5:
            return _frame(WINDOW_UPDATE, 0, stream_id, chance.choice((1, 65_535, 1 << 20)).to_bytes(4, "big"))
        if what < 0.7:
            return _frame(PING, chance.choice((0, ACK)), 0, b"8 bytes.")
        if what < 0.8:
            return _frame(SETTINGS, ACK, 0)
        if what < 0.9:
            return _frame(SETTINGS, 0, 0, b"".join(struct.pack(">HL", *each) for each in self._settings()))
        if what < 0.96:
            return _frame(PRIORITY, 0, stream_id or 1, b"\0\0\0\0\x10")
        if what < 0.99:
            return _frame(chance.randrange(10, 256), chance.randrange(256), stream_id, b"unknown")
        return _frame(GOAWAY, 0, 0, bytes(8) + b"goodbye")

    def _settings(self) -> list[tuple[int, int]]:
        chance = self._chance
        some = (
            (1, chance.choice((0, 1, 4_095, 4_096, 65_536))),
            (3, chance.choice((0, 100))),
            (4, chance.choice((0, 1, 65_535, 1 << 20, 0x7FFFFFFF))),
            (5, chance.choice((16_384, 20_000, 0xFFFFFF))),
            (6, 8_192),
            (4_242, 4_242),
        )
        return [each for each in some if chance.random() < 0.3]


def _damaged(chance: Random, frame: bytes) -> bytes:
    """The frame, not quite."""
    damaged = bytearray(frame)
    what = chance.randrange(9)
    if what == 0:
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    elif what == 1 and len(damaged) > HEADER.size:
        damaged[chance.randrange(HEADER.size, len(damaged))] = chance.choice((0, 0x7F, 0x80, 0xFF))
    elif what == 2:
        damaged[3:4] = bytes((chance.randrange(11),))
    elif what == 3:
        damaged[4:5] = bytes((chance.randrange(256),))
    elif what == 4:
        damaged[5:9] = _some_id(chance).to_bytes(4, "big")
    elif what == 5:
        damaged[2:3] = bytes((chance.randrange(256),))
    elif what == 6:
        kept = damaged[: chance.randrange(HEADER.size, len(damaged) + 1)] if len(damaged) >= HEADER.size else damaged
        size = len(kept) - HEADER.size
        damaged = bytearray(struct.pack(">L", max(0, size))[1:] + bytes(kept[3:]))
    elif what == 7:
        damaged *= 2
    else:
        damaged = bytearray()
    return bytes(damaged)


def _some_id(chance: Random) -> int:
    return chance.choice(
        (0, 1, 3, 5, 2, 4, 101, 0x7FFFFFFF, 0x80000001, chance.randrange(1, 60), chance.getrandbits(32))
    )


def _any_frame(chance: Random) -> bytes:
    size = chance.choice((0, 0, 1, 4, 5, 6, 8, chance.randrange(60), chance.randrange(60)))
    flags = chance.choice((0, 0, END_STREAM, END_HEADERS, 0x5, chance.randrange(256)))
    return _frame(chance.randrange(11), flags, _some_id(chance), chance.randbytes(size))


def conversation(chance: Random, *, to_client: bool) -> list[bytes]:
    """What one connection is sent."""
    valid = Conversation(chance, to_client=to_client)
    kind = chance.random()
    sent = valid.begin()
    length = chance.choice((10, 40, 100, LONGEST))
    if kind < 0.03:
        return _noise(chance, sent)
    if kind < 0.2:
        sent += [_any_frame(chance) for _ in range(length // 4)]
        return sent
    if kind < 0.21:
        return sent + valid.flood()
    while len(sent) < length:
        sent += valid.go_on()
    if kind < 0.4:
        return sent
    share = chance.choice((0.01, 0.03, 0.3))
    changed = (_damaged(chance, each) if chance.random() < share else each for each in sent)
    return [each for each in changed if each]


def _noise(chance: Random, begun: list[bytes]) -> list[bytes]:
    return begun[: chance.randrange(len(begun) + 1)] + [chance.randbytes(chance.randrange(1, 200)) for _ in range(10)]


def pieces(chance: Random, sent: list[bytes]) -> list[bytes]:
    """What was sent, as it comes: in one piece, frame by frame, byte by byte or anyhow."""
    way = chance.random()
    if way < 0.3:
        return sent
    whole = b"".join(sent)
    if way < 0.33:
        return [whole[at : at + 1] for at in range(min(len(whole), 600))]
    longest = RECEIVE_BYTES if way < 0.6 else chance.choice((30, 100, 1_000, 10_000))
    came = []
    at = 0
    while at < len(whole):
        size = RECEIVE_BYTES if way < 0.5 else chance.randint(1, longest)
        came.append(whole[at : at + size])
        at += size
    return came
