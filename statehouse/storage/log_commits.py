"""Reading the log from a commit on, and finding a commit by what its record says.

The log has no index: where a commit stands is known by walking to it from the beginning of its segment. So that who
reads the whole log in chunks does not walk again with each, places that were come by are remembered: the position
behind a commit and the chain value there, from which a walk goes on as safely as from a header, because every record
is checked against the chain. A place is remembered every LOG_PLACE_BYTES, and at most LOG_PLACES of them: with
more, those of the segment that was read first are forgotten.

Only commits that are durable and applied are read, which are never taken back: so no place is ever wrong.
"""

from bisect import bisect_right
from collections.abc import Callable, Generator
from contextlib import closing
from threading import Lock
from typing import NamedTuple

from statehouse.errors import StorageError
from statehouse.limits import LOG_PLACE_BYTES, LOG_PLACES
from statehouse.storage.disk import Disk
from statehouse.storage.log_damage import Fault, damaged
from statehouse.storage.log_format import LogRecordAt
from statehouse.storage.log_reader import SegmentScan, read_header
from statehouse.storage.segments import segment_path

__all__ = ["LogCommits"]


class _Place(NamedTuple):
    """Behind a commit. The first field alone decides the order: a commit has one place."""

    commit_ts: int
    end: int
    """Bytes from the beginning of the segment."""
    chain: bytes


class LogCommits:
    """Reads the segments that begin at `starts`: a list that its owner appends to. Safe from any thread."""

    def __init__(self, disk: Disk, directory: str, starts: list[int]) -> None:
        self._disk = disk
        self._directory = directory
        self._starts = starts
        self._lock = Lock()
        self._places: dict[int, list[_Place]] = {}
        """Of each segment, ascending."""
        self._count = 0

    def records(self, first_ts: int, last_ts: int) -> Generator[LogRecordAt, None, None]:
        """The records of the commits from `first_ts` to `last_ts`, each checked; `last_ts` is durable.

        Raises StoreDamagedError, StorageError. Holds one file open; close() on the iterator gives it back.
        """
        next_ts = max(first_ts, 1)
        while next_ts <= last_ts:
            index = bisect_right(self._starts, next_ts)
            segment_ts = self._starts[max(index - 1, 0)]
            following = self._starts[index] if index < len(self._starts) else last_ts + 1
            stop_ts = min(last_ts, following - 1)
            path = segment_path(self._directory, segment_ts)
            if not index:
                raise damaged(path, Fault(0, next_ts, "no segment holds the commit"))
            yield from self._segment(path, segment_ts, next_ts, stop_ts)
            next_ts = stop_ts + 1

    def last(self, last_ts: int, counts: Callable[[LogRecordAt], bool]) -> int:
        """The last commit up to `last_ts` whose record counts; 0: none does. Those that count precede all others.

        Reads the first record of some segments, and then of one segment what is between two places. As `records`.
        """
        found = 0
        starts = [start for start in self._starts if start <= last_ts]
        low, high = 0, len(starts)
        while low < high:
            middle = (low + high) // 2
            if counts(self._one(starts[middle])):
                low, found = middle + 1, starts[middle]
            else:
                high = middle
        if not found:
            return 0
        stop_ts = starts[low] - 1 if low < len(starts) else last_ts
        with self._lock:
            places = [place.commit_ts for place in self._places.get(found, ()) if place.commit_ts <= stop_ts]
        low, high = 0, len(places)
        while low < high:
            middle = (low + high) // 2
            if places[middle] >= stop_ts:
                high = middle
            elif counts(self._one(places[middle] + 1)):
                low, found = middle + 1, places[middle] + 1
            else:
                high = middle
        if low < len(places):
            stop_ts = min(stop_ts, places[low] + 1)
        with closing(self.records(found, stop_ts)) as records:
            for record in records:
                if not counts(record):
                    break
                found = record.commit_ts
        return found

    def _one(self, commit_ts: int) -> LogRecordAt:
        with closing(self.records(commit_ts, commit_ts)) as records:
            return next(records)

    def _segment(self, path: str, segment_ts: int, first_ts: int, last_ts: int) -> Generator[LogRecordAt, None, None]:
        try:
            with closing(self._disk.open(path, read_only=True)) as file:
                scan = SegmentScan(file, path, read_header(file, path, segment_ts))
                place = self._before(segment_ts, first_ts)
                if place is not None:
                    scan.commit_ts, scan.end, scan.chain = place
                noted = scan.end
                for record in scan.records(stop_at=last_ts):
                    if scan.end - noted >= LOG_PLACE_BYTES:
                        noted = scan.end
                        self._remember(segment_ts, _Place(scan.commit_ts, scan.end, scan.chain))
                    if record.commit_ts >= first_ts:
                        yield record
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error}") from error
        if scan.fault is not None:
            raise damaged(path, scan.fault)
        if scan.commit_ts < last_ts:
            raise damaged(path, Fault(scan.end, scan.commit_ts + 1, "the segment ends too early"))

    def _before(self, segment_ts: int, first_ts: int) -> _Place | None:
        """The nearest place before a commit."""
        with self._lock:
            places = self._places.get(segment_ts, [])
            index = bisect_right(places, first_ts - 1, key=_commit_ts)
            return places[index - 1] if index else None

    def _remember(self, segment_ts: int, place: _Place) -> None:
        with self._lock:
            places = self._places.setdefault(segment_ts, [])
            index = bisect_right(places, place.commit_ts, key=_commit_ts)
            before = places[index - 1].end if index else 0
            behind = places[index].end if index < len(places) else None
            if place.end - before < LOG_PLACE_BYTES or (behind is not None and behind - place.end < LOG_PLACE_BYTES):
                return  # somebody else came by
            places.insert(index, place)
            self._count += 1
            if self._count > LOG_PLACES:
                oldest = next(iter(self._places))
                self._count -= len(self._places.pop(oldest))


def _commit_ts(place: _Place) -> int:
    return place.commit_ts
