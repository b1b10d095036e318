"""Opening a log whose last segment was changed, and holding what comes of it against what is promised.

`TailSubject` is a log with its records as they were written, and the rows of the view at each of them. `LogTrial` opens
the event log alone, which is quick enough for every byte; `StoreTrial` opens the whole store, and compares its rows.
"""

from functools import cache
from hashlib import sha256
from random import Random
from typing import Final

from attrs import frozen

from every_byte.byte_disk import ByteDisk
from every_byte.expectation import Change, Expected, Outcome, expected
from every_byte.format_reader import HEADER_BYTES, LogFile, Record, read_log, records_of
from every_byte.found import Found
from every_byte.tail_changes import TailChanges
from every_byte.writing import LOG, KeptHome, Writer, open_at, rows_of
from statehouse.errors import StoreDamagedError
from statehouse.storage.commit import GroupCommit, empty_commit
from statehouse.storage.event_log import EventLog, LogHead, LogRecordAt, Placement, TailCut, ViewDisagreesError
from statehouse.storage.folding import LogFolder
from statehouse.storage.keys import EVERYTHING
from statehouse.storage.memory_view import MemoryView
from statehouse.storage.recovery import RecoveryReporter

__all__ = ["LogTrial", "StoreTrial", "TailSubject", "tail_subject"]

_EARLY_SEGMENT_BYTES: Final = 2_048
_EARLY_SEGMENTS: Final = 3
_SLACK_BYTES: Final = 16 * 1024
"""More than a group of four transactions takes, so that the last segment is not left before it is long enough."""
_MORE_NS: Final = 1_800_000_000_000_000_000


@frozen(eq=False)
class TailSubject:
    """A store's log: some short segments, and a last one of so many bytes. `fsync` is how it was written."""

    files: dict[str, bytes]
    log: list[LogFile]
    records: list[Record]
    fsync: bool
    segment_bytes: int

    @property
    def tail(self) -> LogFile:
        """The last segment."""
        return self.log[-1]

    @property
    def head_ts(self) -> int:
        """The last commit."""
        return len(self.records)

    def head_at(self, commit_ts: int) -> LogHead:
        """The watermark of a view that is at `commit_ts`."""
        chain = self.records[commit_ts - 1].chain if commit_ts else sha256(self.log[0].store_id).digest()
        return LogHead(commit_ts, chain)


@cache
def tail_subject(seed: int, tail_bytes: int, *, fsync: bool) -> TailSubject:
    """The log of a seed, written by the real store: short segments, and a last one with `tail_bytes` of records."""
    disk = ByteDisk({}, ("store",))
    writer = Writer(Random(f"tail {seed}"))
    store = open_at(disk, KeptHome(), segment_bytes=_EARLY_SEGMENT_BYTES, fsync=fsync).store
    while len(disk.list_dir(LOG)) < _EARLY_SEGMENTS:
        writer.commit_groups(store, 1)
    store.close()
    segment_bytes = tail_bytes + _SLACK_BYTES
    store = open_at(disk, KeptHome(), segment_bytes=segment_bytes, fsync=fsync).store
    while (tail := read_log(disk.content())[-1]).end - HEADER_BYTES < tail_bytes or len(tail.content) < segment_bytes:
        writer.commit_groups(store, 1)
    written = rows_of(store)
    store.close()
    files = disk.content()
    log = read_log(files)
    subject = TailSubject(files, log, records_of(log), fsync, segment_bytes)
    if views_of(subject)[-1] != written:
        raise ValueError("a view that is folded from the log has other rows than the view that was written")
    return subject


@cache
def views_of(subject: TailSubject) -> list[dict[bytes, bytes]]:
    """The rows of a view at every commit_ts, 0 included."""
    view = MemoryView()
    folder = LogFolder(view)
    views = [rows_of(open_at(ByteDisk({}, ("store",)), KeptHome(), segment_bytes=_EARLY_SEGMENT_BYTES).store)]
    for segment in subject.log:
        for record in segment.records:
            placement = Placement(segment.first_ts, record.start + len(record.chain) + 4)
            folder.add(LogRecordAt(record.commit_ts, record.chain, placement, record.payload))
            folder.flush()
            views.append(dict(view.scan(*EVERYTHING)))
    return views


class LogTrial:
    """Opens the log of a subject with its last segment changed. Counts and complains into `found`."""

    def __init__(self, subject: TailSubject, found: Found) -> None:
        self.subject = subject
        self.found = found
        self.changes = TailChanges(subject.tail)
        self._tail = subject.tail

    def run(self, change: Change, watermark_ts: int | None, *, goes_on: bool = False) -> None:
        """One case: open with a view at `watermark_ts` or none; with `goes_on`, append to what is recovered."""
        wanted = expected(self._tail, change, watermark_ts, fsync=self.subject.fsync)
        try:
            came, wrong = self._open(change, wanted, watermark_ts, goes_on=goes_on)
        except Exception as error:  # noqa: BLE001 - whatever an engine that is broken raises is a finding
            came, wrong = None, f"raised {type(error).__name__}: {error}"
        self.found.tried[f"log: {change.kind}"] += 1
        if came is not None:
            self.found.tried[f"log: {came.value}"] += 1
        if wrong is None and came not in wanted.outcomes:
            wrong = f"{_said(came)}, and should have been {_all_of(wanted)}"
        if wrong is not None:
            view = "no view" if watermark_ts is None else f"a view at {watermark_ts}"
            sync = "fsync" if self.subject.fsync else "no fsync"
            self.found.violation(f"{self._tail.path}, {change.what}, {view}, {sync}: {wrong}")

    def _open(
        self, change: Change, wanted: Expected, watermark_ts: int | None, *, goes_on: bool
    ) -> tuple[Outcome | None, str | None]:
        before = self.subject.files | {self._tail.path: change.content}
        disk = ByteDisk(before)
        records: list[LogRecordAt] = []
        cuts: list[TailCut] = []
        known_good = None if watermark_ts is None else self.subject.head_at(watermark_ts)
        try:
            log = self._log(disk, known_good, records, cuts)
        except StoreDamagedError as error:
            return Outcome.REFUSED, _changed(disk, before) or self._misnamed(error, wanted)
        except ViewDisagreesError:
            return Outcome.DISAGREED, _changed(disk, before)
        wrong = self._recovered(change, wanted, watermark_ts, log, disk, records, cuts)
        if wrong is None and goes_on and Outcome.RECOVERED in wanted.outcomes:
            wrong = self._goes_on(disk, log)
        log.close()
        return Outcome.RECOVERED, wrong

    def _log(
        self, disk: ByteDisk, known_good: LogHead | None, records: list[LogRecordAt], cuts: list[TailCut]
    ) -> EventLog:
        return EventLog.open(
            disk,
            LOG,
            segment_bytes=self.subject.segment_bytes,
            max_bytes=0,
            known_good=known_good,
            verify_all=False,
            fsync=self.subject.fsync,
            report=cuts.append,
            new_store_id=_no_new_store,
            on_record=records.append,
        )

    def _misnamed(self, error: StoreDamagedError, wanted: Expected) -> str | None:
        right = {"file": self._tail.path, "offset": str(wanted.offset), "commit_ts": str(wanted.commit_ts)}
        return None if error.details == right else f"refused, naming {error.details} and not {right}"

    def _recovered(
        self,
        change: Change,
        wanted: Expected,
        watermark_ts: int | None,
        log: EventLog,
        disk: ByteDisk,
        records: list[LogRecordAt],
        cuts: list[TailCut],
    ) -> str | None:
        """What is wrong with the prefix that was recovered; None also when none should have been, which `run` says."""
        if Outcome.RECOVERED not in wanted.outcomes:
            return None
        head_ts = wanted.commit_ts - 1
        if log.head != self.subject.head_at(head_ts):
            return f"the head is {log.head.commit_ts} and not {head_ts}, or its chain value is another"
        written = self.subject.records[watermark_ts or 0 : head_ts]
        if [record.payload for record in records] != [record.payload for record in written]:
            return f"the {len(records)} records are not the {len(written)} that were written"
        if [(record.commit_ts, record.chain) for record in records] != [(one.commit_ts, one.chain) for one in written]:
            return "the records have other places than they were written at"
        dropped = change.content[wanted.offset :].rstrip(b"\0")
        told = [(cut.path, cut.offset, cut.commit_ts, cut.dropped_bytes) for cut in cuts]
        due = [(self._tail.path, wanted.offset, wanted.commit_ts, len(dropped))] if change.fault else []
        if told != due:
            return f"the cut was reported as {told} and not {due}"
        left = change.content[: wanted.offset]
        after = self.subject.files | {self._tail.path: left + bytes(len(change.content) - len(left))}
        return _changed(disk, after)

    def _goes_on(self, disk: ByteDisk, log: EventLog) -> str | None:
        """Append to what was recovered, and open it once more from nothing."""
        more = [b"\x0a\x01\x01", b"\x0a" + bytes(40) + b"\x02"]
        head_ts = log.head.commit_ts
        log.append(more)
        log.sync()
        log.append(more[:1])
        log.sync()
        head = log.head
        log.close()
        records: list[LogRecordAt] = []
        cuts: list[TailCut] = []
        again = self._log(disk, None, records, cuts)
        again.close()
        written = [record.payload for record in self.subject.records[:head_ts]] + more + more[:1]
        if again.head != head or cuts or [record.payload for record in records] != written:
            return f"after appending to the prefix up to {head_ts}, a reopen finds another log"
        return None


class StoreTrial:
    """Opens the whole store of a subject with its last segment changed, and compares every row of its view."""

    def __init__(self, subject: TailSubject, found: Found) -> None:
        self.subject = subject
        self.found = found
        self.changes = TailChanges(subject.tail)
        self._views = views_of(subject)

    def run(self, change: Change, watermark_ts: int | None) -> None:
        """One case: open with a view at `watermark_ts` or none, commit, and open again without one."""
        wanted = expected(self.subject.tail, change, watermark_ts, fsync=self.subject.fsync)
        try:
            wrong = self._open(change, wanted, watermark_ts)
        except Exception as error:  # noqa: BLE001 - whatever an engine that is broken raises is a finding
            wrong = f"raised {type(error).__name__}: {error}"
        self.found.tried["whole store: opened"] += 1
        if wrong is not None:
            view = "no view" if watermark_ts is None else f"a view at {watermark_ts}"
            sync = "fsync" if self.subject.fsync else "no fsync"
            self.found.violation(f"whole store, {change.what}, {view}, {sync}: {wrong}")

    def _open(self, change: Change, wanted: Expected, watermark_ts: int | None) -> str | None:
        subject = self.subject
        before = subject.files | {subject.tail.path: change.content}
        disk = ByteDisk(before)
        home = KeptHome(None if watermark_ts is None else self._views[watermark_ts])
        reporter = _Cuts()
        try:
            opened = open_at(disk, home, segment_bytes=subject.segment_bytes, fsync=subject.fsync, reporter=reporter)
        except StoreDamagedError as error:
            if Outcome.REFUSED not in wanted.outcomes:
                return f"refused, and should have been {_all_of(wanted)}: {error}"
            if home.was_set_aside:
                return "refused, and yet the view was set aside"
            return _changed(disk, before)
        store = opened.store
        try:
            if not wanted.outcomes - {Outcome.REFUSED}:
                return f"recovered up to {store.head_ts}, and should have been refused"
            head_ts = wanted.commit_ts - 1
            if store.head_ts != head_ts or rows_of(store) != self._views[head_ts]:
                return f"recovered up to {store.head_ts} and not {head_ts}, or to other rows"
            if len(reporter.cuts) != change.fault:
                return f"{len(reporter.cuts)} cuts were reported"
            store.commit(GroupCommit(head_ts + 1, _MORE_NS, [empty_commit("one more")]))
            rows = rows_of(store)
        finally:
            store.close()
        store = open_at(disk, KeptHome(), segment_bytes=subject.segment_bytes, fsync=subject.fsync).store
        try:
            if store.head_ts != head_ts + 1 or rows_of(store) != rows:
                return f"committing to the prefix up to {head_ts}, a reopen finds other rows"
        finally:
            store.close()
        return None


class _Cuts(RecoveryReporter):
    def __init__(self) -> None:
        self.cuts: list[TailCut] = []

    def tail_cut(self, cut: TailCut) -> None:
        self.cuts.append(cut)


def _changed(disk: ByteDisk, wanted: dict[str, bytes]) -> str | None:
    changed = disk.changed_from(wanted)
    return f"the files are not as they should be: {', '.join(changed)}" if changed else None


def _said(outcome: Outcome | None) -> str:
    return "failed" if outcome is None else outcome.value


def _all_of(wanted: Expected) -> str:
    return " or ".join(sorted(outcome.value for outcome in wanted.outcomes))


def _no_new_store() -> bytes:
    raise ValueError("a new log was begun where there was one")
