"""Reading a whole log to verify it: every header, record and join; what is wrong is told, and the walk goes on.

Opening a log stops at the first thing that is wrong, because it may not go on. A verification goes on: a segment is
checked from its own header, so that damage in one hides nothing of those behind it. What could not be read is kept as
ranges of commits, which are then left out of what is compared with the log.

A log that is served is read up to `last_ts`, a commit that the view has, and nothing behind that is looked at: it is
being written. A log at rest is read to its end, and what ends it is judged as a start would judge it.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from typing import Final

from statehouse.findings import FindingKind, VerifyFinding
from statehouse.limits import KIB
from statehouse.storage.commit_ranges import CommitRanges
from statehouse.storage.disk import Disk, File
from statehouse.storage.log_at_rest import LogAtRest
from statehouse.storage.log_damage import Fault
from statehouse.storage.log_format import (
    HEADER_BYTES,
    NEXT_SEGMENT_NAME,
    HeaderError,
    LogHead,
    LogRecordAt,
    NewerHeaderError,
    SegmentHeader,
    decode_header,
    genesis_chain,
    segment_first_ts,
    segment_name,
)
from statehouse.storage.log_reader import SegmentScan, last_nonzero
from statehouse.storage.segments import segment_path
from statehouse.storage.taken_back import TAKEN_BACK_NAME
from statehouse.storage.wire import WireError

__all__ = ["LOG_REMEDY", "LogWalk"]

LOG_REMEDY: Final = "keep a copy of the data directory, and restore `log` from a backup"
_NEWER_REMEDY: Final = "use the newer Statehouse"

_TICK_RECORDS: Final = 32
_TICK_BYTES: Final = 256 * KIB
"""A step of the walk is about so much work: a millisecond."""

_ENDLESS: Final = 1 << 64


class LogWalk:
    """One walk over a log. `steps` does the work; what it found out stands in the attributes meanwhile and after it."""

    def __init__(
        self,
        disk: Disk,
        directory: str,
        *,
        last_ts: int | None,
        at_rest: LogAtRest,
        wanted: Collection[int],
        on_record: Callable[[LogRecordAt], None],
    ) -> None:
        """`last_ts` None: a log at rest, which `at_rest` is for. `wanted`: commits whose chain values are kept."""
        self._disk = disk
        self._directory = directory
        self._last_ts = last_ts
        self._at_rest = at_rest
        self._wanted = frozenset(wanted)
        self._on_record = on_record
        self.starts: list[int] = []
        self.head = LogHead(0, b"")
        """How far it got, and at the end the log's head."""
        self.store_id: bytes | None = None
        self.chains: dict[int, bytes] = {}
        """The chain values at the wanted commits, of those that were read."""
        self.unread = CommitRanges()
        """The commits that could not be read."""
        self.records = 0
        self.log_bytes = 0
        """Headers and records, without the zeros behind them."""
        self.done_bytes = 0
        self.total_bytes = 0
        self._joined = True  # all is well up to `head`

    def is_unread(self, commit_ts: int) -> bool:
        """Whether a commit is among those that could not be read."""
        return commit_ts in self.unread

    def ends_before(self, commit_ts: int) -> bool:
        """Once the walk is over: whether the log, where it can be read, ends before a commit."""
        return self.head.commit_ts < commit_ts and not self.is_unread(self.head.commit_ts + 1)

    def leave_out(self, record: LogRecordAt, error: WireError) -> VerifyFinding:
        """Count a commit that was read, and is no transaction, among those that were not."""
        commit_ts, place = record.commit_ts, record.placement
        self.unread.add(commit_ts, commit_ts)
        message = f"the record is whole, and is no transaction: {error}"
        return self._finding(FindingKind.RECORD_MALFORMED, place.segment, place.offset, commit_ts, message)

    def steps(self) -> Iterator[VerifyFinding | None]:
        """Walk. Gives what it finds, and None now and then, after a step of about a millisecond."""
        try:
            names = self._disk.list_dir(self._directory)
        except FileNotFoundError:
            names = []
        yield from self._other_names(names)
        self.starts = sorted(first_ts for name in names if (first_ts := segment_first_ts(name)) is not None)
        if self._last_ts is not None:
            self.starts = [first_ts for first_ts in self.starts if first_ts <= max(self._last_ts, 1)]
        if not self.starts:
            message = (
                "there is no segment: a start would begin a new log, or refuse if the view or a snapshot has commits"
            )
            yield VerifyFinding(kind=FindingKind.LOG_MISSING, message=message, remedy=LOG_REMEDY, file="log")
        sizes = [self._size_bytes(first_ts) for first_ts in self.starts]
        self.total_bytes = sum(sizes)
        before = 0
        for first_ts, following, size in zip(self.starts, self._following(), sizes, strict=True):
            try:
                with closing(self._disk.open(segment_path(self._directory, first_ts), read_only=True)) as file:
                    yield from self._segment(file, first_ts, following, before)
            except OSError as error:
                lost_ts = max(first_ts, self.head.commit_ts + 1)
                yield self._finding(
                    FindingKind.UNREADABLE, first_ts, None, lost_ts, f"it cannot be read: {error.strerror or error}"
                )
                self._lose(lost_ts, following)
            before += size
            self.done_bytes = before
            yield None
        self.unread.end(self.head.commit_ts)

    def _following(self) -> list[int | None]:
        return [*self.starts[1:], None] if self.starts else []

    def _segment(
        self, file: File, first_ts: int, following: int | None, before_bytes: int
    ) -> Iterator[VerifyFinding | None]:
        header, wrong = self._header(file, first_ts)
        if wrong is not None:
            yield wrong
        if header is None:
            self._lose(first_ts, following)
            return
        wrong = self._wrong_join(header)
        if wrong is not None:
            yield wrong
        if self.store_id != header.store_id:
            self._lose(first_ts, following)
            return
        done_ts = self.head.commit_ts  # in an overlap a commit counts once
        to_last = self._last_ts is not None and (following is None or following > self._last_ts)
        scan = SegmentScan(file, segment_path(self._directory, first_ts), header)
        ticked_records, ticked_at = 0, 0
        for record in scan.records(stop_at=self._last_ts if to_last else None):
            commit_ts = record.commit_ts
            if commit_ts > done_ts:
                self.records += 1
                self.head = LogHead(commit_ts, record.chain)
                if commit_ts in self._wanted:
                    self.chains[commit_ts] = record.chain
                self._on_record(record)
            ticked_records += 1
            if ticked_records >= _TICK_RECORDS or scan.end - ticked_at >= _TICK_BYTES:
                ticked_records, ticked_at = 0, scan.end
                self.done_bytes = before_bytes + scan.end
                yield None
        self.log_bytes += scan.end
        self._joined = scan.fault is None
        if scan.fault is not None:
            yield self._fault(file, scan, scan.fault, first_ts, following)
        elif to_last and scan.commit_ts < (self._last_ts or 0):
            message = f"the log ends here, and the view has all commits up to {self._last_ts}"
            yield self._finding(FindingKind.LOG_SHORT, first_ts, scan.end, scan.commit_ts + 1, message)
            self._lose(scan.commit_ts + 1, None)

    def _header(self, file: File, first_ts: int) -> tuple[SegmentHeader | None, VerifyFinding | None]:
        """The header to go on with, if there is one, and what is wrong with the one that is there."""
        try:
            header = decode_header(file.read_at(0, HEADER_BYTES))
        except NewerHeaderError as error:
            wrong = self._finding(FindingKind.NEWER_FORMAT, first_ts, 0, first_ts, str(error), _NEWER_REMEDY)
            return None, wrong
        except HeaderError as error:
            message = str(error)
        else:
            if header.first_ts == first_ts:
                return header, None
            message = (
                f"the header says that the segment begins at commit_ts {header.first_ts}, its name says {first_ts}"
            )
        instead = None
        if self._joined and self.store_id is not None and self.head.commit_ts + 1 == first_ts:
            instead = SegmentHeader(self.store_id, first_ts, self.head.chain)  # what it must have said
        return instead, self._finding(FindingKind.SEGMENT_HEADER, first_ts, 0, first_ts, message)

    def _wrong_join(self, header: SegmentHeader) -> VerifyFinding | None:
        first_ts, next_ts = header.first_ts, self.head.commit_ts + 1
        is_oldest = self.store_id is None
        if is_oldest:
            self.store_id = header.store_id
            genesis = genesis_chain(header.store_id)
            if 0 in self._wanted:
                self.chains[0] = genesis
            if not self.head.chain:
                self.head = LogHead(0, genesis)
            wrong_chain = first_ts == 1 and header.chain_before != genesis
        else:
            wrong_chain = self._joined and next_ts == first_ts and header.chain_before != self.head.chain
        if header.store_id != self.store_id:
            return self._finding(
                FindingKind.SEGMENT_FOREIGN,
                first_ts,
                0,
                first_ts,
                "the segment is of another store than those before it",
            )
        if self._joined and next_ts < first_ts:
            self._lose(next_ts, first_ts)
            message = f"commits {next_ts} to {first_ts - 1} are missing: this segment begins at {first_ts}"
            return self._finding(FindingKind.SEGMENT_MISSING, first_ts, None, next_ts, message)
        if next_ts > first_ts:
            message = f"the segment begins at commit_ts {first_ts}, which a segment before it has too"
            return self._finding(FindingKind.SEGMENT_FOREIGN, first_ts, 0, first_ts, message)
        if wrong_chain:
            message = "the segment does not follow the one before it: the chain value in its header is another"
            if is_oldest:
                message = "the chain value in the header is not that of the store's beginning"
            return self._finding(FindingKind.SEGMENT_FOREIGN, first_ts, 0, first_ts, message)
        return None

    def _fault(
        self, file: File, scan: SegmentScan, fault: Fault, first_ts: int, following: int | None
    ) -> VerifyFinding:
        why: str | None = ""
        if following is None and self._last_ts is None:
            why = self._at_rest.why_not_torn(file, scan, fault)
        if why is None:
            last = last_nonzero(file, fault.offset, scan.size)
            dropped = 0 if last is None else last + 1 - fault.offset
            message = (
                f"{dropped} bytes at the end are no whole record ({fault.reason}): the torn tail of a write that was "
                "cut off before it was answered, or damage to the last commits that nothing else bears witness to; a "
                "start overwrites them with zeros"
            )
            return self._finding(FindingKind.TORN_TAIL, first_ts, fault.offset, fault.commit_ts, message, "")
        self._lose(fault.commit_ts, following)
        message = f"{fault.reason} ({why})" if why else fault.reason
        return self._finding(FindingKind.RECORD_DAMAGED, first_ts, fault.offset, fault.commit_ts, message)

    def _other_names(self, names: list[str]) -> Iterator[VerifyFinding]:
        for name in sorted(names):
            if segment_first_ts(name) is not None:
                continue
            file = f"log/{name}"
            if name.endswith(".log"):
                message = "the name is not that of a segment, and a start refuses it"
                remedy = "move it out of `log`"
                yield VerifyFinding(kind=FindingKind.SEGMENT_FOREIGN, message=message, remedy=remedy, file=file)
            elif name == TAKEN_BACK_NAME:
                yield from self._note_unreadable(file, f"{self._directory}/{name}")
            elif name != NEXT_SEGMENT_NAME:
                message = "not Statehouse's; it is let be"
                yield VerifyFinding(kind=FindingKind.FOREIGN_FILE, message=message, is_note=True, file=file)
            elif self._last_ts is None:
                message = "left from a daemon that was killed; a start removes it"
                yield VerifyFinding(kind=FindingKind.LEFTOVER, message=message, is_note=True, file=file)

    def _note_unreadable(self, file: str, path: str) -> Iterator[VerifyFinding]:
        try:
            self._disk.open(path, read_only=True).close()
        except OSError as error:
            message = f"cannot be read, and a start refuses it: {error.strerror}"
            remedy = "mend its permissions; if it is no file, move it out of `log`"
            yield VerifyFinding(kind=FindingKind.UNREADABLE, message=message, remedy=remedy, file=file)

    def _size_bytes(self, first_ts: int) -> int:
        try:
            with closing(self._disk.open(segment_path(self._directory, first_ts), read_only=True)) as file:
                return file.size()
        except OSError:
            return 0  # found again when it is read

    def _lose(self, first_ts: int, following: int | None) -> None:
        """Remember that the commits from `first_ts` up to the segment that follows cannot be read.

        Those that an earlier segment has, too, were read there.
        """
        self._joined = False
        self.unread.add(max(first_ts, self.head.commit_ts + 1), _ENDLESS if following is None else following - 1)

    @staticmethod
    def _finding(
        kind: FindingKind, first_ts: int, offset: int | None, commit_ts: int, message: str, remedy: str = LOG_REMEDY
    ) -> VerifyFinding:
        return VerifyFinding(
            kind=kind,
            message=message,
            remedy=remedy,
            is_note=kind.is_note,
            file=f"log/{segment_name(first_ts)}",
            offset=offset,
            commit_ts=commit_ts,
        )
