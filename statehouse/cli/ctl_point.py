"""Points of the past on the command line: a commit_ts or a moment, by two options of which one may be given."""

import datetime as dt
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import click

from statehouse.cli.ctl_arguments import TIME, TIMESTAMP

__all__ = ["Point", "as_of_options", "one_point"]


class Point(NamedTuple):
    """A point in the order of all commits; without either it is the newest commit."""

    ts: int | None
    time: dt.datetime | None

    @property
    def given(self) -> bool:
        """Whether it is another than the newest commit."""
        return self.ts is not None or self.time is not None


_AT: Final = click.option("--at", "at_ts", type=TIMESTAMP, metavar="TS", help="As of this commit_ts, inclusive.")
_AT_TIME: Final = click.option(
    "--at-time", type=TIME, metavar="ISO", help="As of this time, inclusive; such as 2030-01-31T12:00:00Z."
)


def as_of_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options `--at` and `--at-time`, which the command gets as `at_ts` and `at_time`."""
    return _AT(_AT_TIME(command))


def one_point(ts: int | None, time: dt.datetime | None, ts_flag: str = "--at", time_flag: str = "--at-time") -> Point:
    """The point that two options name. UsageError when both are given."""
    if ts is not None and time is not None:
        raise click.UsageError(f"{ts_flag} and {time_flag} exclude each other")
    return Point(ts, time)
