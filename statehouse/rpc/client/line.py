"""The line of those who wait for a connection, or for room on it: first come, first served."""

from collections import deque
from collections.abc import Callable

import anyio

from statehouse.rpc.client.loops import Loop, Waiter

__all__ = ["WaitingLine"]


class _Place:
    __slots__ = ("called", "has_room", "waiter")

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.called = False
        self.has_room = False

    def call(self, *, has_room: bool) -> None:
        self.called = True
        self.has_room = has_room
        self.waiter.wake()


class WaitingLine:
    """Who waits. Room that was promised to one of them is nobody else's until its task has run."""

    def __init__(self, loop: Loop, room: Callable[[], int]) -> None:
        """`room` says how many more calls the connection takes, without what is promised here."""
        self._loop = loop
        self._room = room
        self._places: deque[_Place] = deque()
        self.promised = 0

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._places)

    def call_all(self) -> None:
        """Let everybody look again."""
        while self._places:
            self._places.popleft().call(has_room=False)

    def let_in(self) -> None:
        """Call as many as there is room for."""
        while self._places and self._room() > self.promised:
            self._places.popleft().call(has_room=True)
            self.promised += 1

    async def wait(self, limit: float) -> bool:
        """Stand in line until called, at most until `limit`; False when it came to nothing.

        Whoever was let in takes the room before its task waits for anything else.
        """
        place = _Place(self._loop.waiter())
        self._places.append(place)
        going_on = False
        try:
            with anyio.CancelScope(deadline=limit):
                await place.waiter.wait()
            going_on = True
        finally:
            if not place.called:
                self._places.remove(place)
            elif place.has_room:
                self.promised -= 1
                if not going_on:
                    self.let_in()  # the room that was promised to us is the next one's
        return place.called
