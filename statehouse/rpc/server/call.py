"""One call in flight, from the server's side: what it is, what of its answer is not sent, and what ends it early."""

from collections import deque
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, Final, TypeAlias

import trio
from attrs import define

from statehouse.actors.reply import Reply
from statehouse.limits import READ_CHUNK_BYTES
from statehouse.rpc.error_table import EncodedError
from statehouse.rpc.http2.streams import Stream
from statehouse.rpc.messages import MESSAGE_HEADER, Compressed
from statehouse.rpc.server.access import Caller
from statehouse.rpc.server.dispatch import Endpoint

__all__ = ["ServerCall", "Unsent", "Work"]

Work: TypeAlias = Reply[bytes] | Coroutine[Any, Any, bytes] | AsyncGenerator[list[bytes], None]
"""What a handler returns when its answer is not there at once; the lists of a generator are given away."""

JOINED_BYTES: Final = 2 * READ_CHUNK_BYTES
"""Up to this much is joined at once: for many small events that is quicker than frame by frame."""


@define(eq=False)
class ServerCall:
    """Belongs to one connection, which alone changes it."""

    stream: Stream
    endpoint: Endpoint
    caller: Caller
    gzip: bool
    """Whether its messages may be compressed."""
    deadline: float
    """When its client gives it up, on Trio's clock; infinite if never."""
    due: float
    """When the connection must look after it: its deadline, or when its request is overdue."""
    request: bytes | Compressed | None = None
    working: bool = False
    """A task or a reply will end it. It counts until then, whoever still waits for it."""
    scope: trio.CancelScope | None = None
    """Around its task."""
    room: trio.Event | None = None
    """Set when the client's flow control may have let more through."""
    response_started: bool = False
    inside_message: bool = False
    """Part of a message is sent: nothing but the rest of it may follow."""
    over: bool = False
    """Nothing more can be sent: answered, reset by the client, or its connection is gone."""
    watches: bool = False
    """It waits for what is committed from now on, and is counted as a watcher."""
    ended_by: EncodedError | None = None
    """Why the server itself cancelled the call."""

    def cancel(self, why: EncodedError) -> None:
        """The server itself ends the call's work; the client is told `why`, or what had ended it before."""
        if self.scope is None or not self.scope.cancel_called:
            self.ended_by = why
        self.stop()

    def stop(self) -> None:
        """Cancel the call's task, if it has one."""
        if self.scope is not None:
            self.scope.cancel()

    def wake(self) -> None:
        """There may be room to send more."""
        if self.room is not None:
            self.room.set()


class Unsent:
    """Messages on their way out, in their gRPC frames. A large one is never copied as a whole."""

    def __init__(self, messages: list[bytes]) -> None:
        """Takes the messages over: empties the list, so that each is gone from memory when it is sent."""
        parts = [part for each in messages for part in (MESSAGE_HEADER.pack(0, len(each)), each) if part]
        messages.clear()
        self._begun_bytes = 0  # of the first part, sent already
        self.kept_bytes = sum(map(len, parts))
        """What is still in memory: a message counts as a whole until its last byte has left."""
        if 0 < self.kept_bytes <= JOINED_BYTES:
            parts = [b"".join(parts)]
        self._parts: deque[bytes | memoryview] = deque(parts)

    def __bool__(self) -> bool:
        return bool(self._parts)

    def take(self, size_bytes: int) -> bytes:
        """The next piece, of at most `size_bytes`."""
        piece: list[bytes | memoryview] = []
        while self._parts and size_bytes > 0:
            part = self._parts.popleft()
            if len(part) > size_bytes:
                part = memoryview(part)
                self._parts.appendleft(part[size_bytes:])
                part = part[:size_bytes]
                self._begun_bytes += size_bytes
            else:
                self.kept_bytes -= self._begun_bytes + len(part)
                self._begun_bytes = 0
            size_bytes -= len(part)
            piece.append(part)
        return b"".join(piece)
