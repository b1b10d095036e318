"""What a peer may have us do for nothing: budgets that are used up by floods, and by nothing else.

Some frames cost us work and their sender nothing: resets of calls just made (CVE-2023-44487), pings and settings
that want an answer, empty frames (CVE-2019-9512, 9514, 9515, 9518). Each spends from a budget that fills up
again with time. A peer that uses one up is told ENHANCE_YOUR_CALM and goes.
"""

from enum import IntEnum
from typing import Final

from statehouse.rpc.http2.frames import FrameType

__all__ = ["BUDGETS", "EARNED", "EARNED_FRAMES", "SMALL_DATA_BYTES", "SPENDS", "Budget", "Budgets"]


class Budget(IntEnum):
    """The budgets that a connection has."""

    RESETS = 0
    CONTROL = 1
    WINDOW_UPDATES = 2
    SMALL_DATA = 3


SMALL_DATA_BYTES: Final = 64
"""A message that comes in smaller pieces costs more to put together than it is worth."""

BUDGETS: Final = {
    Budget.RESETS: (1_000, 100),
    Budget.CONTROL: (1_000, 100),
    Budget.WINDOW_UPDATES: (20_000, 20_000),
    Budget.SMALL_DATA: (20_000, 20_000),
}
"""How many frames at once, and how many more each second. A client that gives up calls in the ordinary way, or pings
to measure the way's bandwidth, stays far below; so does one that returns flow control for each frame of a fast
replay."""

EARNED: Final = (Budget.WINDOW_UPDATES, Budget.SMALL_DATA)
EARNED_FRAMES: Final = 4
"""What each new stream adds to these budgets, up to what they may have at once: clients return flow control for an
answer, and some send the five bytes before a message in a frame of their own."""

SPENDS: Final = {
    FrameType.PRIORITY: Budget.CONTROL,
    FrameType.RST_STREAM: Budget.RESETS,
    FrameType.SETTINGS: Budget.CONTROL,
    FrameType.PING: Budget.CONTROL,
    FrameType.GOAWAY: Budget.CONTROL,
    FrameType.WINDOW_UPDATE: Budget.WINDOW_UPDATES,
}
"""By type of frame. Of CONTROL, too: frames of unknown types, and DATA that is empty and ends nothing. Of SMALL_DATA:
DATA of less than SMALL_DATA_BYTES that ends nothing. Of RESETS, too: streams that we reset for the peer's fault."""


class Budgets:
    """The budgets of one connection. Time comes from outside, in seconds, of any clock that only goes forward."""

    __slots__ = ("_filled_at", "_left", "_opened")

    def __init__(self, now: float) -> None:
        self._left = [float(burst) for burst, _ in BUDGETS.values()]
        self._filled_at = now
        self._opened = 0  # streams, since then

    def spend(self, budget: Budget, now: float) -> bool:
        """Use up one frame; False when there is none left."""
        if self._left[budget] < 1 or now - self._filled_at >= 1:
            self._fill(now)
            if self._left[budget] < 1:
                return False
        self._left[budget] -= 1
        return True

    def stream_opened(self) -> None:
        """A call begins: it may have frames of its own. A fast client's calls alone would use up a fixed rate."""
        self._opened += 1

    def _fill(self, now: float) -> None:
        passed_s, opened = now - self._filled_at, self._opened
        self._filled_at, self._opened = now, 0
        for budget, (burst, per_second) in BUDGETS.items():
            earned = opened * EARNED_FRAMES if budget in EARNED else 0
            self._left[budget] = min(burst, self._left[budget] + passed_s * per_second + earned)
