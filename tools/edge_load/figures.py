"""What is printed: of the rounds of two servers the medians, the spread, the ratio, and whether the target is met.

A ratio is the median of the rounds' ratios, each of two measurements within seconds of each other: what slows the
machine for a while slows both. Beside each figure stands how busy its load was, as a share of one core. Python runs
on one core at most, so a load at 0.9 and more was itself the limit, and its server could have done more.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from attrs import frozen

__all__ = ["LOAD_BOUND", "Figure", "Goal", "Sample", "table"]

LOAD_BOUND: Final = 0.9


@frozen
class Sample:
    """One server in one round: counts and seconds as the loads' windows have them."""

    windows: tuple[dict[str, Any], ...]

    @property
    def rate(self) -> float:
        """Things done a second, by all loads."""
        return sum(float(each["count"] / each["elapsed_s"]) for each in self.windows)

    @property
    def median_us(self) -> float:
        """The median latency."""
        return float(self.windows[0]["median_s"]) * 1e6

    @property
    def server_us(self) -> float:
        """CPU of the server for one thing done."""
        return self.server_share / self.rate * 1e6

    @property
    def load_share(self) -> float:
        """How much of a core the busiest load took."""
        return max(float(each["load_cpu_s"] / each["elapsed_s"]) for each in self.windows)

    @property
    def server_share(self) -> float:
        """How much of a core the server took."""
        return float(self.windows[0]["server_cpu_s"] / self.windows[0]["elapsed_s"])


@frozen
class Goal:
    """A target: of the ratio, or of our own value."""

    number: float
    at_least: bool
    of_ratio: bool = True

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.number:g}{' x' if self.of_ratio else ''}"

    def met(self, value: float) -> bool:
        """Whether it is reached."""
        return value >= self.number if self.at_least else value <= self.number


@frozen
class Figure:
    """One line of the table. Without a goal it is there for the reader."""

    name: str
    unit: str
    goal: Goal | None
    ours: Sequence[Sample]
    against: Sequence[Sample]
    against_what: str
    value: Callable[[Sample], float]

    @property
    def ratios(self) -> list[float]:
        """Ours over the other's, a round each."""
        return [self.value(one) / self.value(other) for one, other in zip(self.ours, self.against, strict=True)]

    @property
    def met(self) -> bool | None:
        """Whether the target is reached."""
        if self.goal is None:
            return None
        return self.goal.met(statistics.median(self.ratios if self.goal.of_ratio else map(self.value, self.ours)))

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "unit": self.unit,
            "target": None if self.goal is None else str(self.goal),
            "met": self.met,
            "ratio": _spread(self.ratios),
            "ours": self._side(self.ours),
            "against": {"what": self.against_what} | self._side(self.against),
        }

    def cells(self) -> list[str]:
        """The line."""
        return [
            self.name,
            self.unit,
            *(_short(map(self.value, side)) for side in (self.ours, self.against)),
            self.against_what,
            _short(self.ratios),
            "-" if self.goal is None else str(self.goal),
            {True: "yes", False: "NO", None: "-"}[self.met],
            f"{_load(self.ours)} / {_load(self.against)}",
        ]

    def _side(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return {
            **_spread([self.value(sample) for sample in samples]),
            "load_cpu_share": _spread([sample.load_share for sample in samples])["median"],
            "server_cpu_share": _spread([sample.server_share for sample in samples])["median"],
        }


def table(figures: Iterable[Figure]) -> str:
    """The figures for people."""
    head = ["figure", "unit", "ours (spread)", "against (spread)", "what", "ratio (spread)", "target", "met", "load"]
    rows = [head, *(figure.cells() for figure in figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    note = f"load: CPU of the load, ours / against, as a share of one core; * at {LOAD_BOUND:g} it was itself the limit"
    return "\n".join([*lines, note])


def _load(samples: Sequence[Sample]) -> str:
    share = statistics.median(sample.load_share for sample in samples)
    return f"{share:.2f}{'*' if share >= LOAD_BOUND else ''}"


def _spread(values: Sequence[float]) -> dict[str, Any]:
    rounded = [float(f"{value:.4g}") for value in values]
    return {"median": float(f"{statistics.median(values):.4g}"), "rounds": rounded}


def _short(values: Iterable[float]) -> str:
    every = sorted(values)
    return f"{_number(statistics.median(every))} ({_number(every[0])}-{_number(every[-1])})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
