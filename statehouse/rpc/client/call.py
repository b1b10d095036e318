"""One call in flight, from the client's side: what came for it and was not taken lives here.

Flow control is handed back only when the reader asks for more. A slow reader thus holds at most a window
(STREAM_WINDOW_BYTES) beside the message that is coming in, and at most one such window more in the batch that it
works on. Who waits for a single answer always asks for more.
"""

from collections.abc import Callable
from typing import Final

from statehouse.errors import StatehouseError
from statehouse.rpc.http2.streams import Stream
from statehouse.rpc.messages import Compressed, MessageReader

__all__ = ["RECEIVE_MESSAGE_BYTES", "STREAM_WINDOW_BYTES", "Call"]

RECEIVE_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""The largest message taken from a server. A daemon that is not ours must not fill the client's memory."""
STREAM_WINDOW_BYTES: Final = 1024 * 1024
"""What a server may send on one call before the caller asks for more."""


class Call:
    """One call in flight. Its protocol changes it; who waits for it sets `wake`, and takes `messages`."""

    __slots__ = (
        "deadline",
        "encoding",
        "error",
        "limit_s",
        "messages",
        "name",
        "over",
        "reader",
        "stream",
        "streaming",
        "unsent",
        "wake",
        "wanted",
    )

    def __init__(self, name: str, deadline: float, limit_s: float, *, streaming: bool) -> None:
        self.name = name
        self.deadline = deadline
        """When it fails, on the connection's clock; a stream's is set anew for each wait."""
        self.limit_s = limit_s
        """The time that its caller gave, for the error's message."""
        self.streaming = streaming
        self.stream: Stream | None = None
        self.messages: list[bytes | Compressed] = []
        """What came and was not taken."""
        self.over = False
        self.error: StatehouseError | None = None
        """What it failed with, once it is over. Messages that came before are still good."""
        self.wake: Callable[[], object] = _nobody
        """Called when it is over; of a stream, also when a message came."""
        self.wanted = not streaming
        """Whether its reader waits for more than has come."""
        self.encoding: bytes | None = None
        """Of compressed messages; None until the response began."""
        self.reader = MessageReader(RECEIVE_MESSAGE_BYTES)
        self.unsent: memoryview | None = None
        """The rest of the request, when the server's windows did not let it through."""

    def fail(self, error: StatehouseError) -> None:
        """It is over without a good end; nothing happens when it was over."""
        if not self.over:
            self.over = True
            self.error = error
            self.wake()


def _nobody() -> None:
    """Nobody waits."""
