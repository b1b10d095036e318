"""What must hold whatever call failed, told from the calls themselves: not from what the engine says of them.

A commit may be answered only when a sync that succeeded covers its record, and no sync of that file had failed before:
that is 'no commit is answered after a failed sync', without a clock. Beyond that: which failures end all commits until
the next start, and which must not.
"""

import errno
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing

from attrs import frozen

from statehouse.storage.disk import Disk
from statehouse.storage.log_format import RECORD_OVERHEAD_BYTES
from statehouse.storage.log_opening import list_segments
from statehouse.storage.log_reader import SegmentScan, read_header
from statehouse.storage.segments import segment_path
from syscalls.calls import ERRNOS, Call, Kind, Place

__all__ = [
    "RecordAt",
    "ends_all_commits",
    "may_end_all_commits",
    "may_fail_reads",
    "may_keep_closed",
    "records_of",
    "uncovered",
]

_OF_THE_LOG = {Place.SEGMENT, Place.NEXT_SEGMENT, Place.LOG}


@frozen
class RecordAt:
    """Where the record of a commit stands: its first byte and the one behind its last."""

    path: str
    start: int
    stop: int


def records_of(disk: Disk, directory: str, *, below: str = "") -> dict[int, RecordAt]:
    """Every good record of the log in `directory`, by commit_ts; paths are as seen from `below`."""
    found: dict[int, RecordAt] = {}
    if not disk.exists(directory):
        return found
    for first_ts in list_segments(disk, directory):
        path = segment_path(directory, first_ts)
        with closing(disk.open(path, read_only=True)) as file:
            for record in SegmentScan(file, path, read_header(file, path, first_ts)).records():
                start = record.placement.offset - RECORD_OVERHEAD_BYTES
                stop = record.placement.offset + len(record.payload)
                found[record.commit_ts] = RecordAt(path.removeprefix(below), start, stop)
    return found


def ends_all_commits(calls: Sequence[Call]) -> int | None:
    """The index of the first call after which no commit may be answered until the next start, or None."""
    return next((index for index, call in enumerate(calls) if call.error and _ends(call)), None)


def may_end_all_commits(calls: Iterable[Call]) -> bool:
    """Whether something was struck that may make the store read-only: whatever else is struck must not.

    What cannot be written for want of room is taken back, and is no reason; when taking it back is struck too, it is.
    """
    taken_back: list[Call] = []
    for call in calls:
        if not call.error or call.place not in _OF_THE_LOG:
            continue
        if call.kind in {Kind.SYNC, Kind.SYNC_DIR} or call.place is Place.LOG or ERRNOS[call.error] != errno.ENOSPC:
            return True
        if call.kind is Kind.WRITE and call.place is Place.SEGMENT:
            if any(before.path == call.path and before.start < call.stop for before in taken_back):
                return True
            taken_back.append(call)
    return False


def may_keep_closed(calls: Iterable[Call]) -> bool:
    """Whether something was struck that a store cannot be opened without: of a snapshot, nothing but a new name is."""
    return any(call.error and (call.place is not Place.SNAPSHOT or call.kind is Kind.RENAME) for call in calls)


def may_fail_reads(calls: Iterable[Call]) -> bool:
    """Whether a segment could not be read: values are in there, and no client reads anything else from a file."""
    return any(call.error and call.place is Place.SEGMENT and (call.reads or call.kind is Kind.READ) for call in calls)


def uncovered(calls: Sequence[Call], records: Mapping[int, RecordAt], answered: Mapping[int, int]) -> list[str]:
    """The commits that were answered and that no good sync covers; `answered` has how many calls had been made then.

    Records that were there before the first of the calls are nobody's business.
    """
    wrong = []
    for commit_ts, made in sorted(answered.items()):
        record = records.get(commit_ts)
        if record is None:
            continue  # lost: the oracle says so
        written = _last_write(calls[:made], record)
        if written is None:
            wrong.append(
                f"commit_ts {commit_ts} was answered after {made} of {len(calls)} calls, and no write of its record "
                f"({record}) succeeded before"
            )
            continue
        syncs = [call for call in calls[:made] if call.kind is Kind.SYNC and call.path == record.path]
        after = [call for call in calls[written:made] if call.kind is Kind.SYNC and call.path == record.path]
        good = next((call for call in after if not call.error), None)
        before_good = syncs[: len(syncs) - len(after) + (after.index(good) if good is not None else 0)]
        if good is None or any(call.error for call in before_good):
            wrong.append(f"commit_ts {commit_ts} was answered, and no good sync covers its record in {record.path}")
    return wrong


def _ends(call: Call) -> bool:
    if call.kind is Kind.SYNC_DIR:
        return call.place is Place.LOG
    if call.place is not Place.SEGMENT:
        return False
    return call.kind is Kind.SYNC or (call.kind is Kind.WRITE and ERRNOS[call.error] != errno.ENOSPC)


def _last_write(calls: Sequence[Call], record: RecordAt) -> int | None:
    """The index of the last write that had all of a record in it, and succeeded."""
    for index in range(len(calls) - 1, -1, -1):
        call = calls[index]
        whole = call.start <= record.start and record.stop <= call.stop
        if call.kind is Kind.WRITE and not call.error and call.path == record.path and whole:
            return index
    return None
