"""From bytes to frames: the connection preface, and whatever is not yet a whole frame, live here."""

from collections.abc import Iterator

from statehouse.rpc.http2.faults import ConnectionFaultError
from statehouse.rpc.http2.frames import CONNECTION_PREFACE, FRAME_HEADER, FRAME_HEADER_BYTES, U31, ErrorCode
from statehouse.rpc.http2.outgoing import FRAME_BYTES

__all__ = ["FrameReader"]


class FrameReader:
    """Takes what came apart into frames. Keeps less than one frame, for a frame's length is judged at its header."""

    def __init__(self, *, preface: bool) -> None:
        """With `preface` a client's preface must come first."""
        self.rest = b""
        """What came and is no whole frame yet."""
        self._preface = CONNECTION_PREFACE if preface else b""

    def frames(self, received: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """Type, flags, stream and payload of each frame that is whole now. Raises ConnectionFaultError.

        Iterate to the end; after an error, or when no more are wanted, the reader is of no use.
        """
        unread = self.rest + received if self.rest else received
        at = 0
        if self._preface:
            begun = unread[: len(self._preface)]
            if not self._preface.startswith(begun):
                raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "not the beginning of HTTP/2")
            if len(begun) < len(self._preface):
                self.rest = unread
                return
            at, self._preface = len(begun), b""
        while len(unread) - at >= FRAME_HEADER_BYTES:
            high, low, kind, flags, stream_id = FRAME_HEADER.unpack_from(unread, at)
            size = high << 8 | low
            if size > FRAME_BYTES:  # refused before it is waited for
                raise ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            end = at + FRAME_HEADER_BYTES + size
            if end > len(unread):
                break
            yield kind, flags, stream_id & U31, unread[at + FRAME_HEADER_BYTES : end]
            at = end
        self.rest = unread[at:]
