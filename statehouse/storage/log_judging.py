"""Whether the event log that is found is whole: which segments there are, whether they join, where the log ends.

Headers and joins are checked for every segment; records from the view's watermark on, or all. What is found is told
apart as in `docs/formats.md`: a torn tail is left to `log_opening` to cut, anything else is refused with
StoreDamagedError. Nothing here changes a file, so a log that is refused is as it was.
"""

from bisect import bisect_right
from collections.abc import Callable
from contextlib import ExitStack, closing

from attrs import frozen

from statehouse.errors import StoreDamagedError
from statehouse.limits import KIB
from statehouse.storage.disk import Disk, File
from statehouse.storage.log_at_rest import LogAtRest
from statehouse.storage.log_damage import Fault, damaged
from statehouse.storage.log_format import (
    HEADER_BYTES,
    LENGTH,
    LENGTH_BYTES,
    MAX_PAYLOAD_BYTES,
    RECORD_OVERHEAD_BYTES,
    LogHead,
    LogRecordAt,
    SegmentHeader,
    genesis_chain,
)
from statehouse.storage.log_reader import SegmentScan, ViewAheadError, read_header
from statehouse.storage.segments import segment_path

__all__ = [
    "JudgedLog",
    "LogEnd",
    "check_is_not_behind",
    "check_segments",
    "check_view_is_not_ahead",
    "judge_segments",
]


@frozen
class LogEnd:
    """Where the records of a log end: the segment, the offset behind the last one, and the head there."""

    path: str
    offset: int
    head: LogHead


@frozen
class SegmentFound:
    path: str
    header: SegmentHeader
    size: int

    @property
    def first_ts(self) -> int:
        return self.header.first_ts


def check_view_is_not_ahead(end: LogEnd, known_good: LogHead | None, *, may_lose_commits: bool) -> None:
    """StoreDamagedError when the view has commits that the log does not; ViewAheadError where that may happen."""
    head = end.head
    if known_good is None or known_good.commit_ts <= head.commit_ts:
        return
    if may_lose_commits:
        first_lost = head.commit_ts + 1
        raise ViewAheadError(
            f"the log ends at commit_ts {head.commit_ts}, and the view has {known_good.commit_ts}: "
            f"commits {first_lost} to {known_good.commit_ts} are lost, as may happen when power is lost "
            "without fsync"
        )
    raise _missing(end, f"the view has {known_good.commit_ts}")


def check_is_not_behind(end: LogEnd, synced_ts: int) -> None:
    """StoreDamagedError when the log ends before a commit that was synced."""
    if end.head.commit_ts < synced_ts:
        raise _missing(end, f"a snapshot has {synced_ts}")


def _missing(end: LogEnd, witness: str) -> StoreDamagedError:
    return StoreDamagedError(
        f"{end.path}, offset {end.offset}: the log ends at commit_ts {end.head.commit_ts}, and {witness}: records are "
        "missing; nothing was changed; restore a copy of the folder `log`, or, to go on with what the log has, move "
        "the folders `state` and `snapshots` aside and start again",
        details={"file": end.path, "offset": str(end.offset), "commit_ts": str(end.head.commit_ts + 1)},
    )


def check_segments(disk: Disk, directory: str, starts: list[int], *, synced_ts: int, fsync: bool) -> None:
    """Raise what `open_segments` would without a view, having read everything. Changes nothing."""
    judge_segments(
        disk,
        directory,
        starts,
        known_good=None,
        synced_ts=synced_ts,
        verify_all=True,
        fsync=fsync,
        on_record=lambda _: None,
    ).file.close()


@frozen
class JudgedLog:
    """A log that is good: its last segment, open, and the walk over it; the sealed ones with zeros at their ends."""

    last: SegmentFound
    file: File
    scan: SegmentScan
    sealed_bytes: int
    untrimmed: list[SegmentScan]


def judge_segments(
    disk: Disk,
    directory: str,
    starts: list[int],
    *,
    known_good: LogHead | None,
    synced_ts: int,
    verify_all: bool,
    fsync: bool,
    on_record: Callable[[LogRecordAt], None],
) -> JudgedLog:
    segments = _read_headers(disk, directory, starts)
    # failpoint: open.headers_read
    after = known_good.commit_ts if known_good is not None else 0
    chain_at_after = known_good.chain if known_good is not None else None
    first = 0 if verify_all or known_good is None else max(bisect_right(starts, after) - 1, 0)
    sealed_bytes = 0
    untrimmed: list[SegmentScan] = []

    def walk(file: File, segment: SegmentFound) -> SegmentScan:
        scan = SegmentScan(file, segment.path, segment.header)
        for record in scan.records(after, chain_at_after=chain_at_after):
            on_record(record)
        return scan

    for index, segment in enumerate(segments[:-1]):
        following = segments[index + 1]
        with closing(disk.open(segment.path)) as file:
            if index < first and _ends_with(file, segment.size, following.header.chain_before):
                sealed_bytes += segment.size
                continue
            scan = walk(file, segment)
            _check_joins(scan, following)
            if scan.size > scan.end:  # power was lost in a rotation, before the sealed segment was trimmed
                untrimmed.append(scan)
            sealed_bytes += scan.end
    last = segments[-1]
    with ExitStack() as on_failure:
        file = disk.open(last.path)
        on_failure.callback(file.close)
        scan = walk(file, last)
        if scan.fault is not None:
            why = LogAtRest(known_good, synced_ts, fsync).why_not_torn(file, scan, scan.fault)
            if why is not None:
                raise damaged(scan.path, scan.fault, why)
        end = LogEnd(last.path, scan.end, LogHead(scan.commit_ts, scan.chain))
        check_view_is_not_ahead(end, known_good, may_lose_commits=not fsync)
        check_is_not_behind(end, synced_ts)
        on_failure.pop_all()
    return JudgedLog(last, file, scan, sealed_bytes, untrimmed)


def _read_headers(disk: Disk, directory: str, starts: list[int]) -> list[SegmentFound]:
    segments: list[SegmentFound] = []
    for first_ts in starts:
        path = segment_path(directory, first_ts)
        try:
            file = disk.open(path, read_only=True)
        except IsADirectoryError as error:
            raise damaged(path, Fault(0, first_ts, "there is a folder where the segment should be")) from error
        with closing(file):
            segment = SegmentFound(path, read_header(file, path, first_ts), file.size())
        oldest = segments[0] if segments else segment
        if segment.header.store_id != oldest.header.store_id:
            reason = f"the segment is of another store than {oldest.path}"
            raise damaged(path, Fault(0, first_ts, reason))
        segments.append(segment)
    oldest = segments[0]
    if oldest.first_ts != 1:
        reason = f"the log begins at commit_ts {oldest.first_ts}: segments before it are missing"
        raise damaged(oldest.path, Fault(0, 1, reason))
    if oldest.header.chain_before != genesis_chain(oldest.header.store_id):
        raise damaged(oldest.path, Fault(0, 1, "the header's chain value is not that of the store's beginning"))
    return segments


def _ends_with(file: File, size: int, chain: bytes) -> bool:
    """Whether the segment's last record has this chain value: that it joins the next, without reading all of it."""
    reach = 4 * KIB
    while True:
        start = max(HEADER_BYTES, size - reach)
        chunk = file.read_at(start, size - start)
        found = chunk.rfind(chain)
        while found >= LENGTH_BYTES:
            record = found - LENGTH_BYTES
            payload_bytes = LENGTH.unpack_from(chunk, record)[0] & MAX_PAYLOAD_BYTES
            if record + RECORD_OVERHEAD_BYTES + payload_bytes == len(chunk):
                return True
            found = chunk.rfind(chain, 0, found)
        if start == HEADER_BYTES:
            return False
        reach *= 16


def _check_joins(scan: SegmentScan, following: SegmentFound) -> None:
    if scan.fault is not None:
        raise damaged(scan.path, scan.fault, f"it is not the last segment: {following.path} follows")
    if scan.commit_ts + 1 < following.first_ts:
        reason = f"the segment ends here, and the next, {following.path}, begins at commit_ts {following.first_ts}"
        raise damaged(scan.path, Fault(scan.end, scan.commit_ts + 1, reason))
    if scan.commit_ts + 1 > following.first_ts or scan.chain != following.header.chain_before:
        reason = f"the segment does not follow {scan.path}, which ends at commit_ts {scan.commit_ts}"
        raise damaged(following.path, Fault(0, following.first_ts, reason))
