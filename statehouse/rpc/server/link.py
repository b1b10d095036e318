"""The way to a peer as a connection sees it: a plain socket is written to at once, anything else by a task.

A task that only writes costs a switch to it and back for every answer. A socket that is not blocked takes an
answer in one system call; what it does not take is the writer's.
"""

import os
from typing import Final, Protocol

import trio

from statehouse.limits import KIB

__all__ = ["Link", "SocketLink", "StreamLink"]

RECEIVE_BYTES: Final = 64 * KIB


class Link(Protocol):
    """Bytes to and from a peer."""

    async def receive(self) -> bytes:
        """What came; empty at the end. Raises trio.BrokenResourceError. Cancelling loses nothing."""

    def send_now(self, output: bytearray) -> int:
        """Send what can be sent without waiting; how much that was. Raises trio.BrokenResourceError."""

    async def send_all(self, output: bytearray) -> None:
        """Send everything. Raises trio.BrokenResourceError. Not while `send_now` is in use."""


class StreamLink:
    """Any stream of Trio's, such as a TLS stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def receive(self) -> bytes:
        return bytes(await self._stream.receive_some(RECEIVE_BYTES))

    def send_now(self, output: bytearray) -> int:  # noqa: ARG002
        return 0

    async def send_all(self, output: bytearray) -> None:
        await self._stream.send_all(output)


class SocketLink(StreamLink):
    """A TCP or Unix socket, without anything around it."""

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self._descriptor = stream.socket.fileno()

    def send_now(self, output: bytearray) -> int:
        try:
            return os.write(self._descriptor, output)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError from error
