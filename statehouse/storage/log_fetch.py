"""Reading parts of the event log by pointer: one, or many at once.

A pointer says which commit, where in its segment, how many bytes, and their CRC-32; the segment is found by commit_ts.
Every byte that leaves here has passed its checksum. When one does not, either the log or the pointer is not what was
written, and what has to be done differs: so the segment is checked then, which takes as long as reading it. Of each
segment it is remembered how far it was whole. Safe from any thread.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Final, TypeAlias
from zlib import crc32

from statehouse.errors import StorageError
from statehouse.limits import READ_CHUNK_BYTES
from statehouse.storage.log_damage import Fault, damaged
from statehouse.storage.segments import SegmentReaders, segment_path
from statehouse.storage.view import ViewDamagedError

__all__ = ["LogFetch", "Pointer"]

Pointer: TypeAlias = tuple[int, int, int, int]
"""commit_ts, offset in its segment, length, CRC-32."""

_SPAN_PER_WANTED: Final = 32
"""A span is read in one go while at least one byte in so many of it is wanted. Measured with records of 400 bytes from
the page cache: below one in 64 a read for each is as quick, at one in 16 a span takes a third of the time."""

_NO_STOP: Final = 1 << 64


class LogFetch:
    """Reads by pointer from the segments that begin at `starts`: a list that its owner appends to.

    `whole_until(commit_ts, last_ts)` says up to which commit, at most `last_ts`, the segment of `commit_ts` is whole; 0
    when there is no such commit. It raises what is wrong up to that commit: StoreDamagedError, StorageError.
    """

    def __init__(
        self, readers: SegmentReaders, directory: str, starts: list[int], whole_until: Callable[[int, int], int]
    ) -> None:
        self._readers = readers
        self._directory = directory
        self._starts = starts
        self._whole_until = whole_until
        self._checking = Lock()
        self._whole: dict[int, int] = {}
        """What it said of segments, by their first commit_ts."""

    def read(self, commit_ts: int, offset: int, size: int, crc: int) -> bytes:
        """One part of the log; raises StoreDamagedError, StorageError, or ViewDamagedError: the pointer is wrong."""
        first_ts, _ = self._bounds(commit_ts)
        chunk = self._read_span(first_ts, commit_ts, offset, size)
        if len(chunk) != size or crc32(chunk) != crc:
            raise self._mismatch(commit_ts, offset)
        return chunk

    def read_many(self, pointers: Sequence[Pointer]) -> list[bytes]:
        """Many parts, in the order of the pointers. Quick when they ascend, as an agent's events do."""
        found: list[bytes] = []
        index, count = 0, len(pointers)
        while index < count:
            # Grow a span from here, as long as the next part is behind, near, and in the same segment ...
            commit_ts, start, wanted, _ = pointers[index]
            first_ts, stop_ts = self._bounds(commit_ts)
            end = start + wanted
            upto = index + 1
            while upto < count:
                next_ts, offset, length, _ = pointers[upto]
                grown = offset + length - start
                wanted += length
                if (
                    offset < end
                    or grown > READ_CHUNK_BYTES
                    or grown > _SPAN_PER_WANTED * wanted
                    or not first_ts <= next_ts < stop_ts
                ):
                    break
                end = offset + length
                upto += 1
            # ... then read it at once and take it apart.
            span = self._read_span(first_ts, commit_ts, start, end - start)
            for part_ts, offset, length, crc in pointers[index:upto]:
                at = offset - start
                part = span[at : at + length]
                if crc32(part) != crc or len(part) != length:
                    raise self._mismatch(part_ts, offset)
                found.append(part)
            index = upto
        return found

    def _bounds(self, commit_ts: int) -> tuple[int, int]:
        """The segment that holds `commit_ts`: its first commit_ts, and the next segment's."""
        starts = self._starts
        index = bisect_right(starts, commit_ts)
        if not index:
            raise ViewDamagedError(f"a row is of commit_ts {commit_ts}, which the log never had")
        return starts[index - 1], starts[index] if index < len(starts) else _NO_STOP

    def _read_span(self, first_ts: int, commit_ts: int, offset: int, size: int) -> bytes:
        try:
            return self._readers.read(first_ts, offset, size)
        except FileNotFoundError as error:
            path = segment_path(self._directory, first_ts)
            raise damaged(path, Fault(offset, commit_ts, "the segment is missing")) from error
        except OSError as error:
            path = segment_path(self._directory, first_ts)
            raise StorageError(f"{path}: cannot read commit_ts {commit_ts} at offset {offset}: {error}") from error

    def _mismatch(self, commit_ts: int, offset: int) -> ViewDamagedError:
        """What a pointer comes to that says something else than a log that is whole. Raises what the log is not."""
        first_ts, stop_ts = self._bounds(commit_ts)
        with self._checking:
            if commit_ts > self._whole.get(first_ts, 0):
                self._whole[first_ts] = self._whole_until(commit_ts, stop_ts - 1)
        return ViewDamagedError(
            f"a row says that commit_ts {commit_ts} has bytes at offset {offset} of its segment that are not there"
        )
