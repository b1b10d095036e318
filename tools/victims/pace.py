"""Time that passes faster for a victim than for its parent, so that values expire in one that lives for a moment.

Both of its clocks go so many times as fast: the one that sleeps and deadlines go by, and the wall clock, which goes on
from life to life.
"""

import time
from typing import Final

from attrs import frozen
from trio.abc import Clock

__all__ = ["QuickClock", "wall_ns"]

_BEGAN_NS: Final = time.time_ns()
"""In the parent: a victim is forked, and has it from there."""


@frozen
class QuickClock(Clock):
    """Trio's clock, `pace` times as fast."""

    pace: int

    def start_clock(self) -> None:
        """It goes already."""

    def current_time(self) -> float:
        return time.monotonic() * self.pace

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return (deadline - self.current_time()) / self.pace


def wall_ns(pace: int) -> int:
    """Nanoseconds since 1970, `pace` times as fast since this was imported."""
    return _BEGAN_NS + (time.time_ns() - _BEGAN_NS) * pace
