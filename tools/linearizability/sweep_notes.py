"""Looks into the log of a daemon that serves it for the commits that show no event: notes of what has expired."""

from contextlib import closing
from pathlib import Path
from typing import Final

from statehouse.storage.disk import RealDisk
from statehouse.storage.log_opening import list_segments
from statehouse.storage.log_reader import SegmentScan, read_header
from statehouse.storage.record_notes import read_notes
from statehouse.storage.segments import segment_path

__all__ = ["sweep_notes"]

ENDLESS: Final = 1 << 64


def sweep_notes(directory: Path, after_ts: int, last_ts: int) -> frozenset[int]:
    """Those after one commit and up to another, which is durable: nothing behind it is looked at. Blocks."""
    disk, log = RealDisk(), str(directory)
    noted: set[int] = set()
    starts = list_segments(disk, log)
    for first_ts, next_ts in zip(starts, [*starts[1:], ENDLESS], strict=True):
        if next_ts <= after_ts + 1 or first_ts > last_ts:
            continue
        path = segment_path(log, first_ts)
        with closing(disk.open(path, read_only=True)) as file:
            for record in SegmentScan(file, path, read_header(file, path, first_ts)).records(after_ts, stop_at=last_ts):
                if read_notes(record.payload).swept_until_ns is not None:
                    noted.add(record.commit_ts)
    return frozenset(noted)
