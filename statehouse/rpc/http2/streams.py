r"""What a stream may do when: HTTP/2's stream states as data (RFC 9113, 5.1).

                     HEADERS
              idle ----------> open
                             /  |   \
              END_STREAM    /   |    \    END_STREAM
              received     /    |     \   sent
                          v     |      v
       half-closed (remote)     |     half-closed (local)
                          \     |      /
               END_STREAM  \    |     /  END_STREAM
               sent         v   v    v   received
                              closed   <- RST_STREAM, sent or received

Nothing is pushed, so there are no reserved streams. A stream that is idle or closed has no object: every id
above the highest seen is idle, every other one is closed.
"""

from enum import IntEnum
from typing import Any, Final, NamedTuple

from statehouse.rpc.http2.frames import ErrorCode, FrameType

__all__ = ["AFTER_END_RECEIVED", "AFTER_END_SENT", "CLOSED_EARLY", "RECEIVED", "State", "Stream", "Verdict"]


class State(IntEnum):
    """Of a stream, from our side. Those below HALF_CLOSED_REMOTE may receive anything."""

    OPEN = 0
    HALF_CLOSED_LOCAL = 1
    HALF_CLOSED_REMOTE = 2
    CLOSED = 3
    IDLE = 4


AFTER_END_RECEIVED: Final = {State.OPEN: State.HALF_CLOSED_REMOTE, State.HALF_CLOSED_LOCAL: State.CLOSED}
AFTER_END_SENT: Final = {State.OPEN: State.HALF_CLOSED_LOCAL, State.HALF_CLOSED_REMOTE: State.CLOSED}


class Verdict(NamedTuple):
    """What becomes of a frame that a stream's state does not expect."""

    code: ErrorCode
    """NO_ERROR: it is ignored."""
    ends_connection: bool = False


_IGNORED: Final = Verdict(ErrorCode.NO_ERROR)
_TOO_EARLY: Final = Verdict(ErrorCode.PROTOCOL_ERROR, ends_connection=True)
_TOO_LATE: Final = Verdict(ErrorCode.STREAM_CLOSED)
_MUCH_TOO_LATE: Final = Verdict(ErrorCode.STREAM_CLOSED, ends_connection=True)

RECEIVED: Final[dict[State, dict[FrameType, Verdict]]] = {
    State.IDLE: {
        FrameType.DATA: _TOO_EARLY,
        FrameType.HEADERS: _TOO_EARLY,
        FrameType.RST_STREAM: _TOO_EARLY,
        FrameType.WINDOW_UPDATE: _TOO_EARLY,
    },
    State.HALF_CLOSED_REMOTE: {FrameType.DATA: _TOO_LATE, FrameType.HEADERS: _TOO_LATE},
    State.CLOSED: {
        FrameType.DATA: _TOO_LATE,
        FrameType.HEADERS: _MUCH_TOO_LATE,
        FrameType.RST_STREAM: _IGNORED,
        FrameType.WINDOW_UPDATE: _IGNORED,
    },
}
"""Frames that need a verdict; in every other state they are simply taken."""

CLOSED_EARLY: Final = {
    FrameType.DATA: _IGNORED,
    FrameType.HEADERS: _IGNORED,
    FrameType.RST_STREAM: _IGNORED,
    FrameType.WINDOW_UPDATE: _IGNORED,
}
"""On a stream that we have reset: what comes was under way."""


class Stream:
    """An open or half-closed stream. Only its connection changes it."""

    __slots__ = ("call", "id", "receive_window", "send_window", "state")

    def __init__(self, stream_id: int, send_window: int, receive_window: int) -> None:
        self.id = stream_id
        self.state = State.OPEN
        self.send_window = send_window
        """How much the peer lets us send; below zero after it made its windows smaller (6.9.2)."""
        self.receive_window = receive_window
        """How much we let the peer send."""
        self.call: Any = None
        """What the role keeps with it: what has come of a request, or the call that waits for the answer."""

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent on it any more, or it has run to its end."""
        return self.state is State.CLOSED
