"""What large requests may hold until they are handled: what bounds memory when senders or readers are slow, or many."""

from collections import deque
from collections.abc import Callable

from attrs import define, field

from statehouse.limits import REQUESTS_IN_LINE

__all__ = ["RequestBudget", "Waiting"]


@define(eq=False)
class Waiting:
    """A request in line."""

    size_bytes: int
    admitted: Callable[[], None]


@define
class RequestBudget:
    """So many bytes for the large requests of all connections of a server. Who comes first is let in first."""

    capacity_bytes: int
    held_bytes: int = 0
    _line: deque[Waiting] = field(factory=deque, init=False)

    @property
    def waiting(self) -> int:
        """How many wait in line."""
        return len(self._line)

    def take(self, size_bytes: int) -> bool:
        """Whether there is room now, and nobody waits for it; it is then held until it is given back."""
        if self._line or not self._fits(size_bytes):
            return False
        self.held_bytes += size_bytes
        return True

    def wait(self, size_bytes: int, admitted: Callable[[], None]) -> Waiting | None:
        """Get in line; `admitted` is called, once, when the bytes are held. None when the line is too long already."""
        if len(self._line) >= REQUESTS_IN_LINE:
            return None
        waiting = Waiting(size_bytes, admitted)
        self._line.append(waiting)
        return waiting

    def leave(self, waiting: Waiting) -> None:
        """Leave the line."""
        self._line.remove(waiting)
        self._let_in()

    def give_back(self, size_bytes: int) -> None:
        """What was held is free again."""
        self.held_bytes -= size_bytes
        self._let_in()

    def _let_in(self) -> None:
        while self._line and self._fits(self._line[0].size_bytes):
            waiting = self._line.popleft()
            self.held_bytes += waiting.size_bytes
            waiting.admitted()

    def _fits(self, size_bytes: int) -> bool:
        return not self.held_bytes or self.held_bytes + size_bytes <= self.capacity_bytes
