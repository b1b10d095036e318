"""Long requests of reads that are kept until they are read: while their client takes nothing, or in line.

There are two bounds, a connection's within the server's. Nobody waits here: a request that finds no room is refused.
But clients that never read cannot keep others out: where room is missing, requests whose client has taken nothing for
ANSWER_STALL_S make it, who waits longest first. Their calls are ended; none is, when all of them would not do.
"""

from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from typing import Final, Self

import trio
from attrs import define, field

from statehouse.errors import OverloadedError
from statehouse.limits import ANSWER_STALL_S, KIB

__all__ = ["SHORT_REQUEST_BYTES", "Kept", "KeptRequests"]

SHORT_REQUEST_BYTES: Final = 16 * KIB
"""A request up to this size may wait to be read without being counted."""


@define(eq=False)
class Kept:
    """A request that is kept until it is read, or its block is left."""

    size_bytes: int
    _rooms: tuple["KeptRequests", ...] = ()
    waits_since: float = field(default=0.0, init=False)
    end: Callable[[], None] | None = field(default=None, init=False)
    """Ends its call; None when its client is not what it waits for."""

    def let_go(self) -> None:
        """It is kept no more. Idempotent."""
        rooms, self._rooms = self._rooms, ()
        for room in rooms:
            room.held_bytes -= self.size_bytes
            room.waiting.pop(self, None)

    @contextmanager
    def waiting_for_client(self, end: Callable[[], None]) -> Generator[None, None, None]:
        """During the block it is the client that takes nothing; before and after it is others.

        `end` is called, once at most, when that lasts for too long and others need the room. The request then counts no
        more; the block is to be left in the next turn of the event loop.
        """
        self.waits_since, self.end = trio.current_time(), end
        for room in self._rooms:
            room.waiting[self] = None
        try:
            yield
        finally:
            self.end = None
            for room in self._rooms:
                del room.waiting[self]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()


@define(eq=False)
class KeptRequests:
    """So many bytes of a server, or of a connection `within` a server's. A request that is longer is let in alone."""

    _capacity_bytes: int
    _whose: str
    """Of a refusal: what is too much."""
    _within: tuple["KeptRequests", ...] = ()
    held_bytes: int = field(default=0, init=False)
    waiting: dict[Kept, None] = field(factory=dict, init=False)
    """For their clients, who waits longest first."""

    def keep(self, size_bytes: int) -> Kept:
        """Keep a request of this size, if it is long. OverloadedError: there is no room, and none can be made."""
        if size_bytes <= SHORT_REQUEST_BYTES:
            return Kept(size_bytes)
        rooms = (self, *self._within)
        stalled: list[Kept] = []
        for room in rooms:
            stalled += room._in_the_way(size_bytes, stalled)  # noqa: SLF001 - of this class
        for each in stalled:
            end = each.end
            each.let_go()
            if end is not None:
                end()
        for room in rooms:
            room.held_bytes += size_bytes
        return Kept(size_bytes, rooms)

    def _in_the_way(self, size_bytes: int, ended: Collection[Kept]) -> list[Kept]:
        """Who is to be ended for a request of this size, beside those who are already. OverloadedError: no help."""
        late = trio.current_time() - ANSWER_STALL_S
        left_bytes = self.held_bytes - sum(each.size_bytes for each in ended)
        found: list[Kept] = []
        coming = iter(self.waiting)
        while left_bytes and left_bytes + size_bytes > self._capacity_bytes:
            each = next(coming, None)
            if each is None or each.waits_since > late:
                raise OverloadedError(f"too many long requests{self._whose} wait for their client, or in line")
            if each not in ended:
                found.append(each)
                left_bytes -= each.size_bytes
        return found
