"""Reading one segment of the event log: its header, and then record by record, each checked.

`SegmentScan` walks a segment from its first record and stops at the end or at the first bad record; what a bad record
means is judged by `statehouse.storage.log_damage` and by who asked for the walk. A walk holds a window of the segment
in memory, or one record when that is larger.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import Final

from statehouse.errors import NewerFormatError
from statehouse.limits import MIB
from statehouse.storage.disk import File
from statehouse.storage.log_damage import Fault, damaged
from statehouse.storage.log_format import (
    AFTER_SYNC,
    HEADER_BYTES,
    LENGTH,
    LENGTH_BYTES,
    MAX_PAYLOAD_BYTES,
    RECORD_OVERHEAD_BYTES,
    HeaderError,
    LogRecordAt,
    NewerHeaderError,
    Placement,
    SegmentHeader,
    decode_header,
)

__all__ = [
    "SegmentScan",
    "ViewAheadError",
    "ViewDisagreesError",
    "last_nonzero",
    "read_header",
    "zero_range",
]

_WINDOW_BYTES: Final = MIB
_ZEROS: Final = bytes(_WINDOW_BYTES)


class ViewDisagreesError(Exception):
    """The log's chain value at the view's watermark is not the view's, or is lost: the view must be rebuilt."""


class ViewAheadError(ViewDisagreesError):
    """The view has commits that power loss has taken from the log, as may happen without fsync."""


def read_header(file: File, path: str, first_ts: int) -> SegmentHeader:
    """Read and check a segment's header; StoreDamagedError names the file, NewerFormatError a newer format."""
    try:
        header = decode_header(file.read_at(0, HEADER_BYTES))
    except NewerHeaderError as error:
        raise NewerFormatError(f"{path}: {error}", details={"file": path, "format": str(error.version)}) from error
    except HeaderError as error:
        raise damaged(path, Fault(0, first_ts, str(error))) from error
    if header.first_ts != first_ts:
        reason = f"the header says that the segment begins at commit_ts {header.first_ts}, its name says {first_ts}"
        raise damaged(path, Fault(0, first_ts, reason))
    return header


class SegmentScan:
    """One walk over the records of a segment.

    Whatever `records` has passed is verified: `commit_ts` and `chain` are the head up to there, `end` is the offset
    behind it, `synced_to` the offset up to which the records themselves say that they had been synced. When the walk
    is over, `fault` is the bad record that ended it, or None for a clean end.
    """

    def __init__(self, file: File, path: str, header: SegmentHeader) -> None:
        self.path = path
        self.size = file.size()
        self.commit_ts = header.first_ts - 1
        self.chain = header.chain_before
        self.end = HEADER_BYTES
        self.synced_to = HEADER_BYTES
        self.fault: Fault | None = None
        self._file = file
        self._segment = header.first_ts

    def records(
        self, after: int = 0, *, chain_at_after: bytes | None = None, stop_at: int | None = None
    ) -> Iterator[LogRecordAt]:
        """Check the records in order and yield those with commit_ts > `after`, up to and including `stop_at`.

        Raises ViewDisagreesError when the chain value at `after` is not `chain_at_after`; OSError when the file cannot
        be read.
        """
        if chain_at_after is not None and after == self.commit_ts and chain_at_after != self.chain:
            raise ViewDisagreesError(f"the view has another commit {after} than the log")
        segment, size = self._segment, self.size
        window, base, at = b"", self.end, 0  # window[at] is the file's byte base + at
        while stop_at is None or self.commit_ts < stop_at:
            if len(window) - at < RECORD_OVERHEAD_BYTES:
                base, at = base + at, 0
                window = self._file.read_at(base, _WINDOW_BYTES)
                if len(window) < RECORD_OVERHEAD_BYTES:
                    if window.strip(b"\0"):
                        self._bad("the file ends within the record's length and chain value")
                    return
            length_field = window[at : at + LENGTH_BYTES]
            (length,) = LENGTH.unpack(length_field)
            payload_bytes = length & MAX_PAYLOAD_BYTES
            stop = at + RECORD_OVERHEAD_BYTES + payload_bytes
            if stop > len(window):
                if base + stop > size:
                    self._bad(f"a length of {payload_bytes} bytes runs past the end of the file")
                    return
                base, stop, at = base + at, stop - at, 0
                window = self._file.read_at(base, max(stop, _WINDOW_BYTES))
                if len(window) < stop:
                    self._bad("the file ends within the record")
                    return
            if not payload_bytes:
                # The end. Bytes behind it mean that it is none: a length that was lost or became zero.
                if length or last_nonzero(self._file, base + at, size) is not None:
                    self._bad("a length of zero, and it is not the end")
                return
            stored = window[at + LENGTH_BYTES : at + RECORD_OVERHEAD_BYTES]
            payload = window[at + RECORD_OVERHEAD_BYTES : stop]
            if sha256(self.chain + length_field + payload).digest() != stored:
                self._bad("the chain value does not match")
                return
            if length & AFTER_SYNC:
                self.synced_to = base + at
            commit_ts = self.commit_ts = self.commit_ts + 1
            self.chain = stored
            self.end = base + stop
            if commit_ts > after:
                yield LogRecordAt(commit_ts, stored, Placement(segment, self.end - payload_bytes), payload)
            elif chain_at_after is not None and commit_ts == after and chain_at_after != stored:
                raise ViewDisagreesError(f"the view has another commit {after} than the log")
            at = stop

    def _bad(self, reason: str) -> None:
        self.fault = Fault(self.end, self.commit_ts + 1, reason, self.chain)


def last_nonzero(file: File, start: int, stop: int) -> int | None:
    """The offset of the last byte in [start, stop) that is not zero, None when all are."""
    while stop > start:
        begin = max(start, stop - _WINDOW_BYTES)
        chunk = file.read_at(begin, stop - begin)
        if chunk != _ZEROS[: len(chunk)]:
            return begin + len(chunk.rstrip(b"\0")) - 1
        stop = begin
    return None


def zero_range(file: File, start: int, stop: int) -> None:
    """Write zeros over what is not zero in [start, stop). Not synced.

    What is zero is left alone, so that a hole in the file stays one and a full disk does not stand in the way.
    """
    while start < stop:
        chunk = file.read_at(start, min(_WINDOW_BYTES, stop - start))
        if not chunk:
            return
        if chunk != _ZEROS[: len(chunk)]:
            file.write_at(start, _ZEROS[: len(chunk)])
        start += len(chunk)
