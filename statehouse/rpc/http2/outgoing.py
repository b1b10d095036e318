"""What an HTTP/2 connection sends: frames gather in `output`, within the windows that the peer grants."""

from collections import deque
from typing import Final

from statehouse.rpc.http2.faults import Ended
from statehouse.rpc.http2.frames import (
    CONNECTION_PREFACE,
    END_STREAM,
    FRAME_HEADER,
    U31,
    U32,
    ErrorCode,
    FrameType,
    Setting,
    frame,
    goaway_payload,
    header_frames,
    settings_payload,
)
from statehouse.rpc.http2.streams import AFTER_END_SENT, State, Stream

__all__ = ["FIRST_WINDOW", "FRAME_BYTES", "Outgoing"]

FRAME_BYTES: Final = 16 * 1024
"""The longest frame that we take, and the least that every peer does (6.5.2)."""
FIRST_WINDOW: Final = 65_535
"""Of a connection always, of a stream until settings say otherwise (6.9.2)."""
RESET_STREAMS: Final = 256
"""Streams we have reset that are remembered, for what was under way on them."""


class Outgoing:
    """The sending half of a connection, and its streams. On a stream that is closed nothing can be sent."""

    def __init__(self, *, client: bool, settings: dict[Setting, int], window_bytes: int) -> None:
        self._client = client
        self.output = bytearray(CONNECTION_PREFACE if client else b"")
        self.ended: Ended | None = None
        self.streams: dict[int, Stream] = {}
        self.highest_stream_id = 0
        """Of the streams that the client has opened."""
        self.peer_frame_bytes = FRAME_BYTES
        self.send_window = FIRST_WINDOW
        """What the peer lets us send, over all streams."""
        self._reset_streams: deque[int] = deque(maxlen=RESET_STREAMS)
        self.output += frame(FrameType.SETTINGS, 0, 0, settings_payload(settings))
        if window_bytes > FIRST_WINDOW:
            self.output += frame(FrameType.WINDOW_UPDATE, 0, 0, U32.pack(window_bytes - FIRST_WINDOW))

    def take_output(self) -> bytearray:
        """What is to be sent, in this order; the caller sends it all."""
        output, self.output = self.output, bytearray()
        return output

    def room(self, stream: Stream) -> int:
        """How much DATA may be sent on a stream now; 0 or less: nothing."""
        return min(stream.send_window, self.send_window)

    def send_headers(self, stream: Stream, block: bytes, *, ends: bool) -> None:
        """Send a header block; with `ends` it is the last of the stream."""
        self.output += header_frames(stream.id, block, self.peer_frame_bytes, end_stream=ends)
        if ends:
            self._end_sent(stream)

    def send_data(self, stream: Stream, data: bytes | memoryview, *, ends: bool) -> None:
        """Send DATA, in as many frames as it takes. At most `room` bytes."""
        size = len(data)
        stream.send_window -= size
        self.send_window -= size
        limit = self.peer_frame_bytes
        if size <= limit:
            self.output += FRAME_HEADER.pack(size >> 8, size & 0xFF, 0, END_STREAM if ends else 0, stream.id)
            self.output += data
        else:
            view = memoryview(data)
            for at in range(0, size, limit):
                piece = view[at : at + limit]
                flags = END_STREAM if ends and at + limit >= size else 0
                self.output += FRAME_HEADER.pack(len(piece) >> 8, len(piece) & 0xFF, 0, flags, stream.id)
                self.output += piece
        if ends:
            self._end_sent(stream)

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream at once, in both directions."""
        if self.streams.pop(stream.id, None) is not None:
            stream.state = State.CLOSED
            self._reset_streams.append(stream.id)
            self.output += frame(FrameType.RST_STREAM, 0, stream.id, U32.pack(code))

    def need_no_more(self, stream: Stream) -> None:
        """After the last of an answer: a client that is still sending may stop (RFC 9113, 8.1)."""
        if not stream.closed:
            self.reset(stream, ErrorCode.NO_ERROR)

    def grant(self, stream: Stream, size_bytes: int) -> None:
        """Let the peer send so much more on a stream."""
        stream.receive_window += size_bytes
        self.output += frame(FrameType.WINDOW_UPDATE, 0, stream.id, U32.pack(size_bytes))

    def ping(self, opaque: bytes) -> None:
        """Ask for a sign of life; `opaque` has 8 bytes."""
        self.output += frame(FrameType.PING, 0, 0, opaque)

    def go_away(self, last_stream_id: int = U31) -> None:
        """Say goodbye: streams above `last_stream_id` will not be looked at, the others go on."""
        self.output += frame(FrameType.GOAWAY, 0, 0, goaway_payload(last_stream_id, ErrorCode.NO_ERROR, b""))

    def end(self, code: ErrorCode, reason: str) -> None:
        """End the connection with a GOAWAY. Nothing is read after it. Idempotent."""
        if self.ended is None:
            self.ended = Ended(code, reason)
            looked_at = 0 if self._client else self.highest_stream_id  # of the streams that the peer opens
            debug = reason.encode()[:64] if code != ErrorCode.NO_ERROR else b""
            self.output += frame(FrameType.GOAWAY, 0, 0, goaway_payload(looked_at, code, debug))

    def _end_sent(self, stream: Stream) -> None:
        stream.state = AFTER_END_SENT[stream.state]
        if stream.state is State.CLOSED:
            del self.streams[stream.id]
