"""Opening the event log: which segments there are, whether they join, where the log ends.

Headers and joins are checked for every segment; records from the view's watermark on, or all. What is found is told
apart as in `docs/formats.md`: the torn tail of the last write is cut and reported, anything else is refused with
StoreDamagedError and left as it is. When `open_segments` returns, the log on disk is exactly what it says.
"""

from bisect import bisect_right
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Final

from attrs import frozen

from statehouse.errors import StoreDamagedError
from statehouse.limits import KIB, MIB
from statehouse.storage.disk import Disk, File
from statehouse.storage.log_damage import Fault, damaged, evidence_of_sync, is_a_hole
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
    segment_first_ts,
)
from statehouse.storage.log_reader import SegmentScan, ViewDisagreesError, last_nonzero, read_header, zero_range
from statehouse.storage.segments import ActiveSegment, segment_path

__all__ = ["OpenedLog", "TailCut", "check_view_is_not_ahead", "list_segments", "open_segments"]

_PAGE_BYTES: Final = 4 * KIB


@frozen
class TailCut:
    """A torn tail that was cut at open: from where, which commit it began with, how many bytes, what was wrong."""

    path: str
    offset: int
    commit_ts: int
    dropped_bytes: int
    reason: str


@frozen
class OpenedLog:
    """The log as found: the first commit_ts of every segment, the bytes in all but the last, the last, the head."""

    store_id: bytes
    starts: list[int]
    sealed_bytes: int
    active: ActiveSegment
    head: LogHead


@frozen
class _Segment:
    path: str
    header: SegmentHeader
    size: int

    @property
    def first_ts(self) -> int:
        return self.header.first_ts


def list_segments(disk: Disk, directory: str) -> list[int]:
    """The first commit_ts of every segment, ascending. StoreDamagedError for a `.log` that is no segment's name."""
    starts = []
    for name in disk.list_dir(directory):
        first_ts = segment_first_ts(name)
        if first_ts is not None:
            starts.append(first_ts)
        elif name.endswith(".log"):
            raise damaged(f"{directory}/{name}", Fault(0, 0, "the name is not that of a segment"))
    return sorted(starts)


def check_view_is_not_ahead(
    directory: str, head: LogHead, known_good: LogHead | None, *, may_lose_commits: bool
) -> None:
    """StoreDamagedError when the view has commits that the log does not; ViewDisagreesError where that may happen."""
    if known_good is None or known_good.commit_ts <= head.commit_ts:
        return
    if may_lose_commits:
        first_lost = head.commit_ts + 1
        raise ViewDisagreesError(
            f"the log ends at commit_ts {head.commit_ts}, and the view has {known_good.commit_ts}: "
            f"commits {first_lost} to {known_good.commit_ts} are lost, as may happen when power is lost "
            "without fsync"
        )
    raise _missing(directory, head, f"the view has {known_good.commit_ts}")


def check_is_not_behind(directory: str, head: LogHead, synced_ts: int) -> None:
    """StoreDamagedError when the log ends before a commit that was synced."""
    if head.commit_ts < synced_ts:
        raise _missing(directory, head, f"a snapshot has {synced_ts}")


def _missing(directory: str, head: LogHead, witness: str) -> StoreDamagedError:
    return StoreDamagedError(
        f"{directory}: the log ends at commit_ts {head.commit_ts}, and {witness}: records are missing; nothing was "
        "changed; restore a copy of the folder `log`, or, to go on with what the log has, move the folders `state` and "
        "`snapshots` aside and start again",
        details={"file": directory, "commit_ts": str(head.commit_ts + 1)},
    )


def open_segments(
    disk: Disk,
    directory: str,
    starts: list[int],
    *,
    known_good: LogHead | None,
    synced_ts: int,
    verify_all: bool,
    fsync: bool,
    report: Callable[[TailCut], None],
    on_record: Callable[[LogRecordAt], None],
) -> OpenedLog:
    """Check the segments `starts` (at least one), cut a torn tail, and call `on_record` as `EventLog.open` says.

    With `fsync`, everything found is durable on return. Without, a view that is ahead of the log is of a history that
    power loss has cut, and disagrees. Raises StoreDamagedError, ViewDisagreesError, OSError.
    """
    segments = _read_headers(disk, directory, starts)
    after = known_good.commit_ts if known_good is not None else 0
    chain_at_after = known_good.chain if known_good is not None else None
    first = 0 if verify_all or known_good is None else max(bisect_right(starts, after) - 1, 0)
    sealed_bytes = 0

    def walk(file: File, segment: _Segment) -> SegmentScan:
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
                file.truncate(scan.end)
                file.sync()
            sealed_bytes += scan.end
    last = segments[-1]
    with ExitStack() as on_failure:
        file = disk.open(last.path)
        on_failure.callback(file.close)
        scan = walk(file, last)
        if scan.fault is not None:
            if scan.fault.commit_ts <= synced_ts:
                raise damaged(scan.path, scan.fault, f"a snapshot has all commits up to {synced_ts}")
            _refuse_unless_torn(file, scan, scan.fault, known_good, fsync=fsync)
        head = LogHead(scan.commit_ts, scan.chain)
        check_view_is_not_ahead(directory, head, known_good, may_lose_commits=not fsync)
        check_is_not_behind(directory, head, synced_ts)
        if scan.fault is not None:
            _cut(file, scan, scan.fault, report)
        if fsync:
            _make_durable(file, scan)
            disk.sync_dir(directory)
        on_failure.pop_all()
    active = ActiveSegment(last.first_ts, file, last.path, scan.end, scan.size)
    return OpenedLog(last.header.store_id, starts, sealed_bytes, active, head)


def _read_headers(disk: Disk, directory: str, starts: list[int]) -> list[_Segment]:
    segments: list[_Segment] = []
    for first_ts in starts:
        path = segment_path(directory, first_ts)
        with closing(disk.open(path, read_only=True)) as file:
            segment = _Segment(path, read_header(file, path, first_ts), file.size())
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


def _check_joins(scan: SegmentScan, following: _Segment) -> None:
    if scan.fault is not None:
        raise damaged(scan.path, scan.fault, f"it is not the last segment: {following.path} follows")
    if scan.commit_ts + 1 < following.first_ts:
        reason = f"the segment ends here, and the next, {following.path}, begins at commit_ts {following.first_ts}"
        raise damaged(scan.path, Fault(scan.end, scan.commit_ts + 1, reason))
    if scan.commit_ts + 1 > following.first_ts or scan.chain != following.header.chain_before:
        reason = f"the segment does not follow {scan.path}, which ends at commit_ts {scan.commit_ts}"
        raise damaged(following.path, Fault(0, following.first_ts, reason))


def _refuse_unless_torn(
    file: File, scan: SegmentScan, fault: Fault, known_good: LogHead | None, *, fsync: bool
) -> None:
    tail = file.read_at(fault.offset, scan.size - fault.offset)
    # The view's commits were answered, but without fsync that does not mean that the log's bytes were on the disk.
    if known_good is not None and fault.commit_ts <= known_good.commit_ts and (fsync or not is_a_hole(tail, fault)):
        raise damaged(scan.path, fault, f"the view has all commits up to {known_good.commit_ts}")
    evidence = evidence_of_sync(tail, scan.chain, fault.offset)
    if evidence is not None:
        raise damaged(scan.path, fault, evidence)


def _cut(file: File, scan: SegmentScan, fault: Fault, report: Callable[[TailCut], None]) -> None:
    last = last_nonzero(file, fault.offset, scan.size)
    dropped_bytes = 0 if last is None else last + 1 - fault.offset
    zero_range(file, fault.offset, scan.size)
    file.sync()
    report(TailCut(scan.path, fault.offset, fault.commit_ts, dropped_bytes, fault.reason))


def _make_durable(file: File, scan: SegmentScan) -> None:
    # What the records do not show to have been synced may be in the page cache alone: the daemon was killed between
    # append and sync, or a sync failed and the kernel marked the pages clean, in which case syncing again writes
    # nothing. So the bytes are written once more, the first page of the zeros behind them too (a group that was rolled
    # back could not come back without its first record).
    for offset in range(scan.synced_to, scan.end, MIB):
        file.write_at(offset, file.read_at(offset, min(MIB, scan.end - offset)))
    zeros = min(_PAGE_BYTES, scan.size - scan.end)
    if zeros > 0:
        file.write_at(scan.end, bytes(zeros))
    file.sync()
