"""Which cases there are in this process, and which of them are run when there is not time for all.

The calls of each shape are counted without a fault; then every one of them is struck in every way. A part of them is
drawn so that every way to strike every kind of call on every place in every shape is among them; with a LevelDB then
only what a view in memory does not have.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from attrs import frozen

from syscalls.calls import Call, Fault, Kind, Written
from syscalls.in_process import SERVING, SHAPES, VIEWS, Case, Result

__all__ = ["Stratum", "every_case", "plain_cases", "stratified"]

_WRITTEN: Final[Mapping[Kind, tuple[Written, ...]]] = {
    Kind.WRITE: (Written.NOTHING, Written.HALF, Written.ALL),
    Kind.BATCH: (Written.NOTHING, Written.ALL),
}
_NEED_NO_ROOM: Final = {Kind.READ, Kind.LIST_DIR}
_OF_A_VIEW: Final = {Kind.BATCH, Kind.OPEN_VIEW}
_LATE: Final = 2
"""A fault makes for more calls than there were without it: so many beyond them are tried, too."""


@frozen
class Stratum:
    """A way to strike: cases that differ only in which of like calls they strike are of one stratum."""

    shape: str
    view: str
    kind: Kind
    place: str
    lasting: bool
    heals: bool
    error: str
    written: Written


def plain_cases() -> list[Case]:
    """The shapes without a fault: their calls are what there is to strike."""
    every = [Case(shape, view, None) for shape in SHAPES for view in VIEWS]
    return [case for case in every if (case.shape, case.view) != ("condemned", "memory")]  # memory cannot be damaged


def every_case(plain: Iterable[tuple[Case, Result]]) -> Iterator[tuple[Stratum, Case]]:
    """All cases, in a fixed order, from what `plain_cases` gave."""
    for case, result in sorted(plain, key=lambda each: str(each[0])):
        yield from _of(case.shape, case.view, result.calls)


def _of(shape: str, view: str, calls: Iterable[Call]) -> Iterator[tuple[Stratum, Case]]:
    by_kind: dict[Kind, list[str]] = defaultdict(list)
    for call in calls:
        by_kind[call.kind].append(call.place)
    for kind, places in by_kind.items():
        for index, place in enumerate([*places, *["late"] * _LATE], start=1):
            for error in ("EIO",) if kind in _NEED_NO_ROOM else ("EIO", "ENOSPC"):
                for written in _WRITTEN.get(kind, (Written.NOTHING,)):
                    for lasting, heals in _modes(shape):
                        fault = Fault(kind, index, lasting, error, written)
                        stratum = Stratum(shape, view, kind, place, lasting, heals, error, written)
                        yield stratum, Case(shape, view, fault, heals)


def _modes(shape: str) -> Sequence[tuple[bool, bool]]:
    modes = [(False, False), (True, False)]
    return [*modes, (True, True)] if shape == SERVING else modes


def stratified(cases: Iterable[tuple[Stratum, Case]], rng: random.Random, each: int) -> list[Case]:
    """At most `each` cases of every stratum, drawn."""
    strata: dict[Stratum, list[Case]] = defaultdict(list)
    for stratum, case in cases:
        if stratum.view == "memory" or stratum.shape == "condemned" or stratum.kind in _OF_A_VIEW:
            strata[stratum].append(case)
    return [case for found in strata.values() for case in rng.sample(found, min(each, len(found)))]
