"""A reader of Replay that counts frames, in a process of its own, on a bare socket.

A gRPC library would be slower than the server that it reads from. This reader looks at the 9 bytes of each frame's
header and at nothing in a DATA frame but its length. How many messages a replay has is found once, at the first, from
the length in front of each message; every later one must have as many bytes. Its windows are large and it opens them
in large steps, so that flow control does not hold the server back.
"""

import itertools
import socket
import time
from typing import Any, Final

from edge_load.frames import (
    ACK,
    DATA,
    END_STREAM,
    GOAWAY,
    HEAD,
    HEADERS,
    LENGTH,
    PADDED,
    PING,
    RST_STREAM,
    SETTINGS,
    call,
    frame,
    more_window,
    opening,
    request_headers,
)
from edge_load.jobs import answer_jobs
from edge_load.meter import Reading, warm_up_s, window
from statehouse.v1 import statehouse_pb2 as pb

RECEIVE_BYTES: Final = 512 * 1024
WINDOW_BYTES: Final = 16 * 1024 * 1024
STEP_BYTES: Final = WINDOW_BYTES // 2
SILENCE_S: Final = 30.0


class FrameReader:
    """One connection, one replay at a time."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=SILENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._send(opening(WINDOW_BYTES))
        self._block = request_headers("Replay", target)
        self._stream_ids = itertools.count(1, 2)
        self._received = b""
        self._owed_bytes = 0
        """Of the connection's window."""

    def close(self) -> None:
        """Let the connection go."""
        self._socket.close()

    def replay(self, request: bytes, content: bytearray | None = None) -> int:
        """Read a whole replay; its bytes in DATA frames, which `content` collects if it is given."""
        stream_id = next(self._stream_ids)
        self._send(call(stream_id, self._block, request))
        total_bytes = owed_bytes = 0  # `owed_bytes` of the stream's window
        while True:
            buffer, position, available = self._received, 0, len(self._received)
            while available - position >= 9:
                high, low, kind, flags, stream = HEAD.unpack_from(buffer, position)
                length = high << 8 | low
                if available - position - 9 < length:
                    break
                position += 9
                if kind == DATA:
                    if flags & PADDED:
                        raise RuntimeError("the server pads its DATA frames, which this reader does not count")
                    total_bytes += length
                    owed_bytes += length
                    self._owed_bytes += length
                    if content is not None:
                        content += buffer[position : position + length]
                else:
                    self._take(kind, flags, buffer[position : position + length])
                position += length
                if stream == stream_id and flags & END_STREAM and kind in {DATA, HEADERS}:
                    self._received = buffer[position:]
                    return total_bytes
            if self._owed_bytes >= STEP_BYTES:
                self._send(more_window(0, self._owed_bytes))
                self._owed_bytes = 0
            if owed_bytes >= STEP_BYTES:
                self._send(more_window(stream_id, owed_bytes))
                owed_bytes = 0
            more = self._socket.recv(RECEIVE_BYTES)
            if not more:
                raise RuntimeError("the server closed the connection")
            self._received = buffer[position:] + more

    def _take(self, kind: int, flags: int, payload: bytes) -> None:
        if kind in {SETTINGS, PING} and not flags & ACK:
            self._send(frame(kind, ACK, 0, payload if kind == PING else b""))
        elif kind in {RST_STREAM, GOAWAY}:
            raise RuntimeError(f"the server ended the replay with frame type {kind}: {payload!r}")

    def _send(self, *frames: bytes) -> None:
        self._socket.sendall(b"".join(frames))


def messages_in(content: bytes | bytearray) -> int:
    """How many gRPC messages these are."""
    count = position = 0
    while position < len(content):
        position += 5 + LENGTH.unpack_from(content, position)[0]
        count += 1
    if position != len(content):
        raise RuntimeError("the replay ended inside a message")
    return count


def read(target: str, server_pid: int, seconds: float, names: dict[str, str], events: int) -> dict[str, Any]:
    """Read the whole replay again and again on one connection, until the time is over; whole replays count."""
    request = pb.ReplayRequest(namespace=names["namespace"], agent_id=names["agent_id"]).SerializeToString()
    reader = FrameReader(target)
    try:
        content = bytearray()
        size_bytes = reader.replay(request, content)
        if messages_in(content) != events:
            raise RuntimeError(f"a replay has {messages_in(content)} events, not {events}")
        warm_s = time.perf_counter() + warm_up_s(seconds)
        while time.perf_counter() < warm_s:
            reader.replay(request)
        count = 0
        first = Reading.now(server_pid)
        while not count or time.perf_counter() < first.wall_s + seconds:
            if reader.replay(request) != size_bytes:
                raise RuntimeError("one replay had more or fewer bytes than another")
            count += events
        return window(first, count, server_pid, event_bytes=size_bytes / events - 5)
    finally:
        reader.close()


if __name__ == "__main__":
    answer_jobs({"read": read})
