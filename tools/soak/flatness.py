"""Whether a series is flat: the one rule, with its numbers.

Over the samples after the warm-up, two estimates of what was gained are made: the least-squares slope times the time
between the first and the last sample, and the median of the last third less the median of the first. Neither may be
more than

    noise + per_hour * hours between the first and the last sample.

The slope finds a slow leak in much noise, the thirds find a step; a spike that comes and goes is neither. `noise` is
what a healthy daemon swings by (LevelDB fills a write buffer of 8 MiB while it empties another), and decides in
minutes; `per_hour` decides in hours, and is the leak that a run of many hours finds for certain.
"""

from collections.abc import Sequence
from statistics import linear_regression, median
from typing import Final

from attrs import frozen

__all__ = ["LEAST_SAMPLES", "Growth", "Rule", "growth"]

LEAST_SAMPLES: Final = 12
"""With fewer, thirds and slopes say nothing; a run that has no series this long has judged nothing."""
HOUR_S: Final = 3_600.0


@frozen
class Growth:
    """What a series gained by either estimate, in its own unit, over `span_s` seconds."""

    by_slope: float
    by_thirds: float
    span_s: float

    @property
    def most(self) -> float:
        """The larger of the two."""
        return max(self.by_slope, self.by_thirds)

    @property
    def an_hour(self) -> float:
        """By the slope, extrapolated."""
        return self.by_slope * HOUR_S / self.span_s


def growth(times_s: Sequence[float], values: Sequence[float]) -> Growth:
    """The growth of at least LEAST_SAMPLES values; ValueError for fewer."""
    if len(values) < LEAST_SAMPLES:
        raise ValueError(f"{len(values)} samples are no series: {LEAST_SAMPLES} are the least")
    span_s = times_s[-1] - times_s[0]
    third = len(values) // 3
    return Growth(
        by_slope=linear_regression(times_s, values).slope * span_s,
        by_thirds=median(values[-third:]) - median(values[:third]),
        span_s=span_s,
    )


@frozen
class Rule:
    """How much a series called `name` may gain, in `unit`."""

    name: str
    unit: str
    noise: float
    per_hour: float

    def allowed(self, span_s: float) -> float:
        """Over so many seconds."""
        return self.noise + self.per_hour * span_s / HOUR_S

    def broken_by(self, grown: Growth, where: str) -> list[str]:
        """What there is to say against a series."""
        allowed = self.allowed(grown.span_s)
        if grown.most <= allowed:
            return []
        said = (
            f"{where}: {self.name} is not flat: it gained {grown.by_slope:.1f} {self.unit} by its slope "
            f"({grown.an_hour:.0f} an hour) and {grown.by_thirds:.1f} from the first to the last third of "
            f"{grown.span_s:.0f} s; {allowed:.1f} are allowed"
        )
        return [said]
