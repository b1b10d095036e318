"""The view in memory: a sorted map with the promises of `view.py`, for STATEHOUSE_USE_MEMORY and for tests.

A scan or a snapshot sees the map as it was, without a copy of it: while one is open, each batch first saves
for it the old values of the keys that it changes (once a key), and reading merges what was saved over what
is there now. So opening one costs nothing, and keeping one open costs what is written meanwhile.
"""

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import groupby, islice
from threading import RLock
from typing import Final

from sortedcontainers import SortedDict

from statehouse.storage.view import Row, Rows, ViewClosedError, Write

__all__ = ["MemorySnapshot", "MemoryView"]

_SCAN_KEYS: Final = 256
"""Keys that a scan looks at while it holds the lock."""


class _Moment:
    """The map as it was when this was made."""

    __slots__ = ("closed", "saved")

    def __init__(self) -> None:
        self.closed = False
        self.saved: SortedDict = SortedDict()
        """Keys changed since, with their values then; None: the key was not there."""


class _Map:
    """The rows, the moments that are still looked at, and the lock over both.

    The lock is reentrant because a scan that is dropped unfinished closes its moment when it is collected,
    which can be in the middle of anything, in any thread.
    """

    def __init__(self) -> None:
        self._rows: SortedDict = SortedDict()
        self._moments: list[_Moment] = []
        self._lock = RLock()
        self._closed = False

    def open_moment(self) -> _Moment:
        moment = _Moment()
        with self._lock:
            self._check(moment)
            self._moments.append(moment)
        return moment

    def close_moment(self, moment: _Moment) -> None:
        with self._lock:
            if not moment.closed:
                moment.closed = True
                moment.saved.clear()
                self._moments.remove(moment)

    def apply(self, writes: Iterable[Write]) -> None:
        # All of them first: an exception from the iterable must leave the map as it was.
        batch = list(writes)
        with self._lock:
            self._check(None)
            for moment in self._moments:
                for key, _ in batch:
                    if key not in moment.saved:
                        moment.saved[key] = self._rows.get(key)
            for key, value in batch:
                if value is None:
                    self._rows.pop(key, None)
                else:
                    self._rows[key] = value

    def get(self, key: bytes, moment: _Moment | None) -> bytes | None:
        with self._lock:
            self._check(moment)
            if moment is not None and key in moment.saved:
                before: bytes | None = moment.saved[key]
                return before
            now: bytes | None = self._rows.get(key)
            return now

    def scan(self, moment: _Moment, start: bytes, stop: bytes, *, reverse: bool, ends_moment: bool) -> Rows:
        """The rows of a moment; with `ends_moment` it is closed with the scan."""
        with self._lock:
            self._check(moment)
        rows = self._chunks(moment, start, stop, reverse=reverse, ends_moment=ends_moment)
        next(rows)  # up to the first yield: only a generator that has begun runs its `finally`
        return rows

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for moment in self._moments:
                moment.closed = True
            self._moments.clear()
            self._rows.clear()

    def _chunks(self, moment: _Moment, start: bytes, stop: bytes, *, reverse: bool, ends_moment: bool) -> Rows:
        try:
            yield b"", b""
            while True:
                with self._lock:
                    self._check(moment)
                    keys = list(islice(self._keys(moment, start, stop, reverse=reverse), _SCAN_KEYS))
                    chunk = list(self._rows_of(moment, keys))
                yield from chunk
                if len(keys) < _SCAN_KEYS:
                    return
                if reverse:
                    stop = keys[-1]
                else:
                    start = keys[-1] + b"\x00"
        finally:
            if ends_moment:
                self.close_moment(moment)

    def _keys(self, moment: _Moment, start: bytes, stop: bytes, *, reverse: bool) -> Iterator[bytes]:
        """Each key of the range that is there now or was saved for the moment, once."""
        both = (rows.irange(start, stop, (True, False), reverse) for rows in (self._rows, moment.saved))
        return (key for key, _ in groupby(merge(*both, reverse=reverse)))

    def _rows_of(self, moment: _Moment, keys: Iterable[bytes]) -> Iterator[Row]:
        for key in keys:
            value: bytes | None = moment.saved[key] if key in moment.saved else self._rows[key]
            if value is not None:
                yield key, value

    def _check(self, moment: _Moment | None) -> None:
        if self._closed or (moment is not None and moment.closed):
            raise ViewClosedError("the view or snapshot is closed")


class MemorySnapshot:
    """A `ViewSnapshot` of a `MemoryView`."""

    def __init__(self, rows: _Map) -> None:
        self._map = rows
        self._moment = rows.open_moment()

    def get(self, key: bytes) -> bytes | None:
        return self._map.get(key, self._moment)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self._map.get(key, self._moment) for key in keys]

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Rows:
        return self._map.scan(self._moment, start, stop, reverse=reverse, ends_moment=False)

    def close(self) -> None:
        self._map.close_moment(self._moment)


class MemoryView:
    """A `View` that is empty when it is made and gone when it is closed. A batch cannot fail."""

    def __init__(self) -> None:
        self._map = _Map()

    def get(self, key: bytes) -> bytes | None:
        return self._map.get(key, None)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self._map.get(key, None) for key in keys]

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Rows:
        return self._map.scan(self._map.open_moment(), start, stop, reverse=reverse, ends_moment=True)

    def apply(self, writes: Iterable[Write]) -> None:
        self._map.apply(writes)

    def snapshot(self) -> MemorySnapshot:
        return MemorySnapshot(self._map)

    def close(self) -> None:
        """Forget everything."""
        self._map.close()
