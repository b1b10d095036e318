"""The end of a log that nobody writes: a torn tail, or damage. Judged here for a start and for a verification alike.

What bears witness is asked in this order: a snapshot, the view, and what stands behind the bad record. Nothing is
changed: a start cuts a torn tail (`log_opening.py`), a verification tells of it.
"""

from attrs import frozen

from statehouse.storage.disk import File
from statehouse.storage.log_damage import Fault, evidence_of_sync, is_a_hole
from statehouse.storage.log_format import LogHead
from statehouse.storage.log_reader import SegmentScan

__all__ = ["LogAtRest"]


@frozen
class LogAtRest:
    """What bears witness to how far a log was synced."""

    known_good: LogHead | None
    """The view's watermark; None when there is no view that a start would use."""
    synced_ts: int
    """The newest commit that a snapshot has, with fsync; else 0."""
    fsync: bool

    def why_not_torn(self, file: File, scan: SegmentScan, fault: Fault) -> str | None:
        """Why a start would refuse the bad record that ends a log; None when it takes it for a torn tail."""
        tail = file.read_at(fault.offset, scan.size - fault.offset)
        if fault.commit_ts <= self.synced_ts:
            return f"a snapshot has all commits up to {self.synced_ts}"
        # The view's commits were answered, but without fsync that does not mean that the log's bytes were on the disk.
        known_ts = 0 if self.known_good is None else self.known_good.commit_ts
        if fault.commit_ts <= known_ts and (self.fsync or not is_a_hole(tail, fault)):
            return f"the view has all commits up to {known_ts}"
        return evidence_of_sync(tail, scan.chain, fault.offset)
