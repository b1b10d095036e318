"""Connections that write down what they are told, and frames packed by hand."""

import struct
from typing import Any, NamedTuple

from statehouse.rpc.http2.connection import Connection
from statehouse.rpc.http2.frames import ErrorCode, Setting
from statehouse.rpc.http2.header_blocks import Fields, HeaderDecoder, literal_block
from statehouse.rpc.http2.streams import Stream

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
WINDOW = 65_535
BLOCK = literal_block([(b":path", b"/a")])
FIELDS = [(b":path", b"/a", False)]


class Frame(NamedTuple):
    kind: int
    flags: int
    stream_id: int
    payload: bytes


def raw(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">L", len(payload))[1:] + struct.pack(">BBL", kind, flags, stream_id) + payload


def u32(number: int) -> bytes:
    return struct.pack(">L", number)


def settings(*named: tuple[int, int]) -> bytes:
    return raw(SETTINGS, 0, 0, b"".join(struct.pack(">HL", *each) for each in named))


def headers(stream_id: int, flags: int = END_HEADERS, block: bytes = BLOCK) -> bytes:
    return raw(HEADERS, flags, stream_id, block)


def parse(output: bytes) -> list[Frame]:
    """Frames, all of them whole."""
    output = output.removeprefix(PREFACE)
    frames = []
    while output:
        size = int.from_bytes(output[:3], "big")
        kind, flags, stream_id = struct.unpack_from(">BBL", output, 3)
        assert len(output) >= 9 + size
        frames.append(Frame(kind, flags, stream_id, output[9 : 9 + size]))
        output = output[9 + size :]
    return frames


class Recorder(Connection[Fields]):
    """Either role; what it is told stands in `events`."""

    def __init__(
        self,
        *,
        client: bool = False,
        window_bytes: int = WINDOW,
        ours: dict[Setting, int] | None = None,
        now: float = 0.0,
    ) -> None:
        super().__init__(
            client=client, settings=ours or {}, window_bytes=window_bytes, decoder=HeaderDecoder(list), now=now
        )
        self.events: list[tuple[Any, ...]] = []
        self.opened: dict[int, Stream] = {}

    def open(self) -> Stream:
        """A call of a client's."""
        self.highest_stream_id += 2 if self.highest_stream_id else 1
        return self._new_stream(self.highest_stream_id)

    def _stream_opened(self, stream: Stream, headers: Fields, *, ends: bool) -> None:
        self.opened[stream.id] = stream
        self.events.append(("opened", stream.id, headers, ends))

    def _headers_came(self, stream: Stream, headers: Fields, *, ends: bool) -> None:
        self.events.append(("headers", stream.id, headers, ends))

    def _data_came(self, stream: Stream, payload: bytes, *, ends: bool) -> None:
        self.events.append(("data", stream.id, payload, ends))

    def _reset_came(self, stream: Stream, code: int) -> None:
        self.events.append(("reset", stream.id, code))

    def _window_grew(self, stream: Stream | None) -> None:
        self.events.append(("room", stream and stream.id))

    def _settings_came(self) -> None:
        self.events.append(("settings",))

    def _setting_came(self, name: int, value: int) -> None:
        self.events.append(("setting", name, value))

    def _goaway_came(self, last_stream_id: int, code: int, text: bytes) -> None:
        self.events.append(("goaway", last_stream_id, code))

    def take_frames(self) -> list[Frame]:
        return parse(bytes(self.take_output()))

    def take_events(self) -> list[tuple[Any, ...]]:
        events, self.events = self.events, []
        return events


def greeted(**options: Any) -> Recorder:
    """A connection that has heard the other side's preface and empty settings; what it said of that is taken."""
    connection = Recorder(**options)
    connection.receive((b"" if options.get("client") else PREFACE) + settings(), 0.0)
    connection.take_output()
    connection.take_events()
    assert connection.ended is None
    return connection


def ended_by(connection: Recorder) -> ErrorCode | None:
    """The code that the connection ended with; its GOAWAY, the last thing it says, has the same."""
    frames = connection.take_frames()
    if connection.ended is None:
        assert not any(each.kind == GOAWAY for each in frames)
        return None
    assert frames[-1].kind == GOAWAY
    assert struct.unpack_from(">L", frames[-1].payload, 4)[0] == connection.ended.code
    assert not connection.ended.by_peer
    return ErrorCode(connection.ended.code)


def resets(connection: Recorder) -> list[tuple[int, int]]:
    """The streams that were reset, and why; takes the output."""
    return [
        (each.stream_id, int.from_bytes(each.payload, "big")) for each in connection.take_frames() if each.kind == 3
    ]
