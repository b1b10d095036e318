"""The engine's clock: wall-clock time that never goes back, by which leases expire and commits are dated.

It is never behind the newest commit of the store, so a restart does not turn it back behind that. Where the system's
clock jumps back (it was set, or corrected after having been ahead), this one goes on at half its pace until the other
has caught up: a lease that had expired stays so, one that is held still expires, at the latest after twice its time,
and the two clocks meet again. Standing still would hold every lease for as long as the jump.
"""

from collections.abc import Callable
from threading import Lock
from typing import Final

__all__ = ["Clock"]

_NS_PER_S: Final = 1_000_000_000


class Clock:
    """Nanoseconds since 1970 that never decrease. `steady_s` reads a clock that nobody sets, in seconds."""

    def __init__(self, wall_ns: Callable[[], int], steady_s: Callable[[], float], *, not_before_ns: int) -> None:
        self._wall_ns = wall_ns
        self._steady_s = steady_s
        self._told_ns = not_before_ns
        self._told_at_s = steady_s()
        self._telling = Lock()

    def now_ns(self) -> int:
        """What time it is. In any thread in which `wall_ns` and `steady_s` may be called."""
        with self._telling:
            wall_ns, steady_s = self._wall_ns(), self._steady_s()
            if wall_ns >= self._told_ns:
                self._told_ns = wall_ns
            else:
                self._told_ns += max(0, int((steady_s - self._told_at_s) * _NS_PER_S)) // 2
            self._told_at_s = steady_s
            return self._told_ns
