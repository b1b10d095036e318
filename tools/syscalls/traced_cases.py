"""Which cases there are with strace, and which of them are run when there is not time for all.

The calls of each thread are counted in a run without a fault. What a call is made on is known from that run; what was
struck in a case, from its own trace.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from attrs import frozen

from syscalls.calls import ERRNOS
from syscalls.strace import Injection, TracedCall
from syscalls.traced import SHAPES, Bases, TracedCase, run_traced

__all__ = ["TracedStratum", "every_traced_case", "stratified_traced"]

_LATE: Final = 2
"""A fault makes for more calls than there were without it: so many beyond them are tried, too."""


@frozen
class TracedStratum:
    """Cases that differ only in which of like calls they strike."""

    shape: str
    syscall: str
    place: str
    lasting: bool
    error: str


def every_traced_case(seed: int, bases: Bases) -> Iterator[tuple[TracedStratum, TracedCase]]:
    """All cases, in a fixed order."""
    for shape in SHAPES:
        found = dict.fromkeys(_struck_at(run_traced(TracedCase(shape), seed, bases).traced))
        for syscall, index, place in found:
            for error in ERRNOS:
                for lasting in (False, True):
                    injection = Injection(syscall, index, lasting, error)
                    yield TracedStratum(shape, syscall, place, lasting, error), TracedCase(shape, injection)


def _struck_at(traced: Iterable[TracedCall]) -> Iterator[tuple[str, int, str]]:
    """Each name and number of a call, and where it goes: in several threads, to several places."""
    counts: dict[tuple[int, str], int] = defaultdict(int)
    for each in traced:
        counts[each.thread, each.syscall] += 1
        yield each.syscall, counts[each.thread, each.syscall], each.call.place
    most: dict[str, int] = defaultdict(int)
    for (_, syscall), count in counts.items():
        most[syscall] = max(most[syscall], count)
    for syscall, count in most.items():
        for late in range(_LATE):
            yield syscall, count + 1 + late, "late"


def stratified_traced(
    cases: Iterable[tuple[TracedStratum, TracedCase]], rng: random.Random, each: int
) -> list[TracedCase]:
    """At most `each` cases of every stratum, drawn; a case that is of two strata is run once."""
    strata: dict[TracedStratum, list[TracedCase]] = defaultdict(list)
    for stratum, case in cases:
        strata[stratum].append(case)
    return list(dict.fromkeys(case for found in strata.values() for case in rng.sample(found, min(each, len(found)))))
