"""Sets of commits that a log cannot show, kept as ranges: few of them, however many places are bad.

A walk over a log adds ranges as it comes to them. When there are RANGES_AT_MOST, the next one opens the rest: from
there on every commit counts as one that cannot be read, until `end`. Whoever sums rows of commits as the walk goes on
asks before each, so that what was summed and what is in the ranges have nothing in common.
"""

from bisect import bisect_left, bisect_right
from typing import Final

__all__ = ["RANGES_AT_MOST", "CommitRanges"]

RANGES_AT_MOST: Final = 10_000


class CommitRanges:
    """Commits, as ranges that neither overlap nor touch."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self.rest_from: int | None = None
        """The first commit of the rest, once there were too many ranges."""
        self._rest_to = 0
        self._ended = False

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def __len__(self) -> int:
        return len(self._firsts)

    def __contains__(self, commit_ts: int) -> bool:
        if self.rest_from is not None and not self._ended and commit_ts >= self.rest_from:
            return True
        index = bisect_right(self._firsts, commit_ts) - 1
        return index >= 0 and commit_ts <= self._lasts[index]

    @property
    def first(self) -> int:
        """The lowest of the commits. IndexError when there is none."""
        return self._firsts[0]

    @property
    def last(self) -> int:
        """The highest of the commits. IndexError when there is none."""
        return self._lasts[-1]

    def add(self, first: int, last: int) -> None:
        """Add a range, ends included; an empty one adds nothing."""
        if first > last:
            return
        if self.rest_from is not None and not self._ended:
            self._rest_to = max(self._rest_to, last)
            return
        low = bisect_left(self._lasts, first - 1)
        high = bisect_right(self._firsts, last + 1)
        if low == len(self._firsts) >= RANGES_AT_MOST and not self._ended:
            self.rest_from, self._rest_to = first, last
            return
        if low < high:
            first, last = min(first, self._firsts[low]), max(last, self._lasts[high - 1])
        self._firsts[low:high] = [first]
        self._lasts[low:high] = [last]

    def end(self, last: int) -> None:
        """The walk is over, and `last` was the last commit that it read: there the rest ends, unless more is lost."""
        self._ended = True
        if self.rest_from is not None:
            self.add(self.rest_from, max(last, self._rest_to))
