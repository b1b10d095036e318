"""Opening the event log: which segments there are, the torn tail cut, what was found made durable.

Whether what is found is whole, and where it ends, is judged first (`log_judging`); only a log that passes is touched.
When `open_segments` returns, the log on disk is exactly what it says.
"""

from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Final

from attrs import frozen

from statehouse.limits import KIB, MIB
from statehouse.storage.disk import Disk, File
from statehouse.storage.log_damage import Fault, damaged
from statehouse.storage.log_format import LogHead, LogRecordAt, segment_first_ts
from statehouse.storage.log_judging import judge_segments
from statehouse.storage.log_reader import SegmentScan, last_nonzero, zero_range
from statehouse.storage.segments import ActiveSegment

__all__ = ["OpenedLog", "TailCut", "list_segments", "open_segments"]

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

    Everything found is durable on return. Without `fsync`, a view that is ahead of the log is of a history that
    power loss has cut, and disagrees. Raises StoreDamagedError, ViewDisagreesError, OSError.
    """
    judged = judge_segments(
        disk,
        directory,
        starts,
        known_good=known_good,
        synced_ts=synced_ts,
        verify_all=verify_all,
        fsync=fsync,
        on_record=on_record,
    )
    file, scan = judged.file, judged.scan
    with ExitStack() as on_failure:
        on_failure.callback(file.close)
        for sealed in judged.untrimmed:  # only now: until here the log might have been refused, and was left as it is
            _trim(disk, sealed)
        if scan.fault is not None:
            _cut(file, scan, scan.fault, report)
        # Without `fsync` too: a full segment is synced, and that sync would pass over what an earlier one failed on.
        _make_durable(file, scan)
        disk.sync_dir(directory)
        on_failure.pop_all()
    active = ActiveSegment(judged.last.first_ts, file, judged.last.path, scan.end, scan.size)
    return OpenedLog(
        judged.last.header.store_id, starts, judged.sealed_bytes, active, LogHead(scan.commit_ts, scan.chain)
    )


def _trim(disk: Disk, sealed: SegmentScan) -> None:
    with closing(disk.open(sealed.path)) as file:
        file.truncate(sealed.end)
        # failpoint: open.sealed_trimmed
        file.sync()


def _cut(file: File, scan: SegmentScan, fault: Fault, report: Callable[[TailCut], None]) -> None:
    last = last_nonzero(file, fault.offset, scan.size)
    dropped_bytes = 0 if last is None else last + 1 - fault.offset
    zero_range(file, fault.offset, scan.size)
    # failpoint: open.tail_cut
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
        # failpoint: open.tail_written_again
    file.sync()
