"""The way to a peer as a connection sees it: a plain socket is read and written at once, anything else by tasks.

A task that only writes costs a switch to it and back for every answer. A socket that is not blocked takes an
answer in one system call; what it does not take is the writer's. Reading is likewise (`poller.py`).
"""

import os
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

import trio

from statehouse.limits import KIB
from statehouse.rpc.server.poller import Poller

__all__ = ["Link", "SocketLink", "StreamLink", "Take"]

RECEIVE_BYTES: Final = 32 * KIB
"""Of one connection, before others have their turn."""

Take: TypeAlias = Callable[[bytes], bool]
"""Takes what came (empty: the end), and says whether it takes more now."""


class Link(Protocol):
    """Bytes to and from a peer."""

    async def read(self, take: Take) -> None:
        """Have `take` take what comes, until it takes no more. A broken peer is the end. Cancelling loses nothing."""

    def send_now(self, output: bytearray) -> int:
        """Send what can be sent without waiting; how much that was. Raises trio.BrokenResourceError."""

    async def send_all(self, output: bytearray) -> None:
        """Send everything. Raises trio.BrokenResourceError. Not while `send_now` is in use."""


class StreamLink:
    """Any stream of Trio's, such as a TLS stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def read(self, take: Take) -> None:
        going_on = True
        while going_on:
            try:
                received = bytes(await self._stream.receive_some(RECEIVE_BYTES))
            except trio.BrokenResourceError:
                received = b""
            going_on = take(received) and bool(received)

    def send_now(self, output: bytearray) -> int:  # noqa: ARG002
        return 0

    async def send_all(self, output: bytearray) -> None:
        await self._stream.send_all(output)


class SocketLink:
    """A TCP or Unix socket, without anything around it."""

    def __init__(self, stream: trio.SocketStream, poller: Poller) -> None:
        self._stream = stream
        self._descriptor = stream.socket.fileno()
        self._poller = poller

    async def read(self, take: Take) -> None:
        stopped = trio.Event()
        bug: list[Exception] = []

        def readable() -> None:
            try:
                going_on = self._read_once(take)
            except Exception as error:  # noqa: BLE001 - raised again below, in the connection's own task
                bug.append(error)
                going_on = False
            if not going_on:
                self._poller.remove(self._descriptor)
                stopped.set()

        self._poller.add(self._descriptor, readable)
        try:
            await stopped.wait()
        finally:
            self._poller.remove(self._descriptor)
        if bug:
            raise bug[0]

    def _read_once(self, take: Take) -> bool:
        try:
            received = os.read(self._descriptor, RECEIVE_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            received = b""
        return take(received) and bool(received)

    def send_now(self, output: bytearray) -> int:
        try:
            return os.write(self._descriptor, output)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError from error

    async def send_all(self, output: bytearray) -> None:
        await self._stream.send_all(output)
