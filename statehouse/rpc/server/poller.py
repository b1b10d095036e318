"""One task that reads for all plain sockets of a server: what costs least is a system call that is not made.

Trio waits for a socket with a system call before and a task switch after; for a connection with one call at a time
both cost as much as the call. Here the sockets stand in an epoll of their own, for as long as they are read. Trio
waits for that epoll, and whatever is readable then is read and handled in one turn.
"""

import select
import time
from collections.abc import Callable
from typing import Final

import trio

__all__ = ["Poller"]

AT_ONCE: Final = 256
"""Sockets that one look at the epoll returns."""
TURN_S: Final = 0.002
"""After about this long others have their turn, and then the next sockets."""


class Poller:
    """Calls a function for each socket while it is readable. `run` is its task; all belongs to the event loop."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}

    def add(self, descriptor: int, readable: Callable[[], None]) -> None:
        """From now on `readable` is called whenever the socket has something, its end included.

        It must not raise or wait; it need not find anything.
        """
        self._readers[descriptor] = readable
        self._epoll.register(descriptor, select.EPOLLIN)

    def remove(self, descriptor: int) -> None:
        """Not from now on; before the socket is closed. Idempotent."""
        if self._readers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    async def run(self) -> None:
        """Read until it is cancelled."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                began_at = time.monotonic()
                for descriptor, _ in self._epoll.poll(0, AT_ONCE):
                    readable = self._readers.get(descriptor)
                    if readable is not None:  # another one's turn may have ended it
                        readable()
                    if time.monotonic() - began_at > TURN_S:
                        await trio.lowlevel.checkpoint()
                        began_at = time.monotonic()
        finally:
            self._readers.clear()  # connections that are cancelled along with this still call `remove`
            self._epoll.close()
