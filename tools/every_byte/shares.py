"""The work of the proof in shares, each a function and its arguments, so that processes can do them side by side.

A share makes its subject anew from the seed (a process keeps it for the next share), and returns a `Found`.
"""

from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import Final, TypeAlias

import structlog
from attrs import frozen

from every_byte.found import Found
from every_byte.segment_cases import run_segment_cases
from every_byte.snapshot_cases import run_snapshot_cases
from every_byte.tail_trials import LogTrial, StoreTrial, tail_subject
from every_byte.view_cases import run_view_cases
from every_byte.view_subject import Shape

__all__ = ["PARTS", "Share", "Size", "shares"]

Share: TypeAlias = Callable[[], Found]

PARTS: Final = ("tail", "segments", "snapshots", "view")

_OFFSETS: Final = 4_096
"""Of one share."""
_GOES_ON: Final = 8
"""One prefix in so many is appended to and opened again."""
_GARBAGE: Final = 300
_UNSYNCED_STEP: Final = 16
_VIEW_SHARES: Final = 12


@frozen
class Size:
    """How much is tried."""

    tail_bytes: int
    long: bool = False
    store_trials: int = 1_500


def shares(seed: int, size: Size, parts: tuple[str, ...]) -> list[Share]:
    """All shares of the parts, the longest first."""
    found: list[Share] = []
    if "view" in parts:
        density = 8 if size.long else 1
        for shape in Shape:
            count = _VIEW_SHARES // 3 * (4 if size.long else 1)
            found += [partial(_view, seed, shape, index, count, density) for index in range(count)]
    if "tail" in parts:
        found += _tail_shares(seed, size)
    if "segments" in parts:
        found.append(partial(_segments, seed))
    if "snapshots" in parts:
        found.append(partial(_snapshots, seed))
    return found


def _tail_shares(seed: int, size: Size) -> Iterator[Share]:
    stop = tail_subject(seed, size.tail_bytes, fsync=True).tail.end
    for fsync in (True, False):
        # With fsync, every offset: that is the promise. Without, it is weaker, and every few tell the same.
        step = 1 if fsync or size.long else _UNSYNCED_STEP
        for start in range(0, stop + _OFFSETS, _OFFSETS):
            yield partial(_offsets, seed, size, fsync, start, step)
        yield partial(_other_changes, seed, size, fsync)
        trials = size.store_trials if fsync else size.store_trials // 4
        for start in range(2):
            yield partial(_stores, seed, size, fsync, start, max(trials // 2, 1))


def _offsets(seed: int, size: Size, fsync: bool, start: int, step: int) -> Found:  # noqa: FBT001 - pickled by place
    """Every `step`-th offset from `start` on: cut there, and a bit of the byte flipped (or each), with three views."""
    found = Found()
    trial = LogTrial(tail_subject(seed, size.tail_bytes, fsync=fsync), found)
    changes, rng = trial.changes, Random(f"offsets {seed} {fsync} {start}")
    for offset in range(start, min(start + _OFFSETS, changes.stop), step):
        views = _views(trial, rng)
        cut = changes.cut(offset)
        for view in views:
            trial.run(cut, view, goes_on=rng.randrange(_GOES_ON) == 0)
        for bit in range(8) if size.long else (rng.randrange(8),):
            flip = changes.flip(offset, bit)
            for view in views:
                trial.run(flip, view, goes_on=rng.randrange(_GOES_ON) == 0)
    return found


def _other_changes(seed: int, size: Size, fsync: bool) -> Found:  # noqa: FBT001 - pickled by place
    """Noise, zeroed sectors, records doubled, removed and swapped, with three views."""
    found = Found()
    trial = LogTrial(tail_subject(seed, size.tail_bytes, fsync=fsync), found)
    changes, rng = trial.changes, Random(f"other {seed} {fsync}")
    for change in (*changes.sectors(), *changes.rearrangements(rng)):
        for view in _views(trial, rng):
            trial.run(change, view, goes_on=rng.randrange(_GOES_ON) == 0)
    for _ in range(_GARBAGE * (10 if size.long else 1)):
        change = changes.garbage(rng.randrange(72, trial.subject.tail.end), rng)
        for view in _views(trial, rng):
            trial.run(change, view)
    return found


def _stores(seed: int, size: Size, fsync: bool, start: int, trials: int) -> Found:  # noqa: FBT001 - pickled by place
    """The whole store opened on drawn cuts and flips."""
    found = Found()
    subject = tail_subject(seed, size.tail_bytes, fsync=fsync)
    trial, rng = StoreTrial(subject, found), Random(f"stores {seed} {fsync} {start}")
    changes = trial.changes
    for _ in range(trials):
        offset = rng.randrange(changes.stop)
        change = changes.cut(offset) if rng.random() < 0.5 else changes.flip(offset, rng.randrange(8))
        trial.run(change, rng.choice((None, subject.head_ts, rng.randint(0, subject.head_ts))))
    return found


def _views(trial: LogTrial, rng: Random) -> tuple[int | None, ...]:
    """None, one that is at the head, one that is somewhere in the last segment."""
    subject = trial.subject
    return None, subject.head_ts, rng.randint(subject.tail.first_ts - 1, subject.head_ts - 1)


def _segments(seed: int) -> Found:
    found = Found()
    run_segment_cases(seed, found)
    return found


def _snapshots(seed: int) -> Found:
    found = Found()
    _be_quiet()
    run_snapshot_cases(seed, found)
    return found


def _view(seed: int, shape: Shape, share: int, count: int, density: int) -> Found:
    found = Found()
    _be_quiet()
    run_view_cases(seed, shape, share, count, density, found)
    return found


def _be_quiet() -> None:
    """The engine logs each snapshot that it writes."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
