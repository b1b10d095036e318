"""Verifying a store: the log's chain, the view against the log, the snapshots, and heads that were kept elsewhere.

`Verification.events` is one long piece of work in small steps, for whoever runs it to interrupt and to space out: it
gives None after each step of about a millisecond, `VerifyProgress` now and then, a `VerifyFinding` for each thing that
is wrong, and the `VerifyVerdict` last. It changes nothing.

    snapshots   each file whole, by its own checksums
    log         every header, record and join (`log_walk.py`); each record also gives the rows that a view must have,
                which are summed, and its chain value, which known heads and snapshots are held against
    view        every row of one moment (`view_walk.py`): the sums must be the log's, and the rest must follow
    names       only when they are not: the log once more, to name the rows (`row_names.py`)

Memory does not grow with the store. What a verification cannot see: a log that was cut or written anew as a whole,
without a head that was kept elsewhere; and the values of rows that a snapshot has, which are only checked for damage.
"""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from secrets import token_bytes
from typing import Final

from attrs import frozen
from google.protobuf.message import DecodeError

from statehouse.findings import (
    FindingKind,
    Head,
    VerifyEvent,
    VerifyFinding,
    VerifyProgress,
    VerifyVerdict,
    distinct,
)
from statehouse.storage import keys
from statehouse.storage.commit import FORMAT_VERSION
from statehouse.storage.disk import Disk
from statehouse.storage.event_log import stored_id
from statehouse.storage.expected_rows import note_rows, outcome_row, read_record, section_rows
from statehouse.storage.log_at_rest import LogAtRest
from statehouse.storage.log_format import LogHead, LogRecordAt
from statehouse.storage.log_walk import LogWalk
from statehouse.storage.row_names import RowNames
from statehouse.storage.row_sums import SECRET_BYTES, RowSums
from statehouse.storage.section import sections_of
from statehouse.storage.section_fields import committed_at_ns
from statehouse.storage.snapshots import witnessed_ts
from statehouse.storage.snapshots_check import SnapshotsCheck
from statehouse.storage.taken_back import taken_back_to
from statehouse.storage.v1.log_pb2 import Watermark
from statehouse.storage.view import ViewDamagedError, ViewSnapshot
from statehouse.storage.view_walk import ViewWalk
from statehouse.storage.wire import WireError
from statehouse.storage.witnesses import (
    judge_heads,
    judge_lag,
    judge_watermark,
    log_ends_before,
    of_view,
    outdated_view,
)

__all__ = ["FINDINGS_AT_MOST", "StoreMoment", "Verification"]

FINDINGS_AT_MOST: Final = 1_000
"""Findings that are given one by one, and likewise notes; what is more is counted."""
PROGRESS_S: Final = 0.5
"""How often progress is told."""


@frozen(kw_only=True)
class StoreMoment:
    """What is verified: the files of a store, and its view as it was at one moment."""

    disk: Disk
    log_directory: str
    snapshot_directory: str
    view: ViewSnapshot | None
    """None: there is none that could be compared."""
    served_head: LogHead | None = None
    """The newest commit of a store that is served, at that moment or before; None for a store at rest."""
    fsync: bool = True
    """Of a store at rest: what its settings say."""


class Verification:
    """One verification, in one thread at a time. Make one, and go through `events` once."""

    def __init__(
        self,
        moment: StoreMoment,
        heads: Iterable[Head] = (),
        *,
        found: Iterable[VerifyFinding] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`heads` were taken before the moment; `found` was found already. ValueError for heads that are none."""
        self._moment = moment
        self._heads = distinct(heads)
        self._clock = clock
        self._began_s = self._said_s = clock()
        self._found = list(found)
        """What is found where nothing can be given at once."""
        self._findings = self._notes = 0
        self._stage = ("snapshots", 0, 0)
        self._watermark: Watermark | None = None
        self._watermark_ts = 0
        self._is_outdated = False
        """Whether the view is of an older format: then it only bears witness to how far the log goes."""
        self._oldest_outcomes = 0
        self._committed_at_ns = 0
        self._taken_back_to: LogHead | None = None
        self._witnessed_ts = 0
        secret = token_bytes(SECRET_BYTES)
        self._by_log, self._by_view = RowSums(secret), RowSums(secret)
        self._snapshots = SnapshotsCheck(moment.disk, moment.snapshot_directory, at_rest=moment.served_head is None)
        self._view_walk: ViewWalk | None = None
        self._walk = self._log_walk(self._on_record)

    def events(self) -> Generator[VerifyEvent | None, None, None]:
        """Verify. Raises OSError when a directory cannot be listed, and ViewUnavailableError or ViewClosedError."""
        self._read_watermark()
        for step in self._steps():
            if step is not None:
                self._found.append(step)
            yield from self._told()
            now_s = self._clock()
            if now_s - self._said_s >= PROGRESS_S:
                self._said_s = now_s
                yield self._progress()
            yield None
        yield from self._told()
        yield self._progress()
        yield self._verdict()

    def _steps(self) -> Iterator[VerifyFinding | None]:
        for step in self._snapshots.steps():
            self._stage = ("snapshots", self._snapshots.done_bytes, self._snapshots.total_bytes)
            yield step
        if self._moment.served_head is None and self._moment.fsync:
            with suppress(OSError):  # of a snapshot that cannot be read has been told
                store_id = stored_id(self._moment.disk, self._moment.log_directory)
                self._witnessed_ts = witnessed_ts(self._moment.disk, self._moment.snapshot_directory, store_id)
        self._walk = self._log_walk(self._on_record)
        for step in self._walk.steps():
            self._stage = ("log", self._walk.done_bytes, self._walk.total_bytes)
            yield step
        yield from judge_heads(self._walk, self._heads)
        yield from self._judge_snapshots()
        if self._moment.view is not None and self._watermark is not None:
            yield from self._judge_watermark(self._watermark)
            if self._is_outdated:
                yield outdated_view(self._watermark)
                return
            try:
                yield from self._compare(self._moment.view)
            except ViewDamagedError as error:
                yield of_view(FindingKind.VIEW_DAMAGED, f"the view cannot be read: {error}")

    # The log

    def _log_walk(self, on_record: Callable[[LogRecordAt], None]) -> LogWalk:
        served = self._moment.served_head
        wanted = {head.commit_ts for head in self._heads} | self._snapshots.commits
        known_good = None
        if self._watermark is not None:
            known_good = self._taken_back_to or LogHead(self._watermark_ts, self._watermark.chain)
            wanted.add(self._watermark_ts)
        return LogWalk(
            self._moment.disk,
            self._moment.log_directory,
            last_ts=None if served is None else max(served.commit_ts, self._watermark_ts),
            at_rest=LogAtRest(known_good, self._witnessed_ts, self._moment.fsync),
            wanted=wanted,
            on_record=on_record,
        )

    def _on_record(self, record: LogRecordAt) -> None:
        commit_ts = record.commit_ts
        try:
            txn_id, sections, notes = read_record(record)
        except WireError as error:
            self._found.append(self._walk.leave_out(record, error))
            return
        if commit_ts == self._watermark_ts:
            first, last = sections_of(record.payload)[0]
            self._committed_at_ns = committed_at_ns(record.payload[first:last])
        if commit_ts > self._watermark_ts or self._walk.is_unread(commit_ts):
            return
        add = self._by_log.add
        for section in sections:
            for key, value in section_rows(section, commit_ts):
                add(key, value)
        for key, value in note_rows(notes, sections, record):
            add(key, value)
        if keys.outcome_bucket(commit_ts) >= self._oldest_outcomes:
            add(*outcome_row(txn_id, commit_ts))

    def _judge_snapshots(self) -> Iterator[VerifyFinding]:
        walk = self._walk
        yield from self._snapshots.judge(walk)
        if walk.ends_before(self._witnessed_ts):
            yield log_ends_before(walk, f"a snapshot has {self._witnessed_ts}", fsync=True)

    # The view

    def _read_watermark(self) -> None:
        view = self._moment.view
        if view is None:
            return
        try:
            packed = view.get(keys.WATERMARK_KEY)
            found = None if packed is None else Watermark.FromString(packed)
        except ViewDamagedError as error:
            self._found.append(of_view(FindingKind.VIEW_DAMAGED, f"the view cannot be read: {error}"))
            return
        except DecodeError:
            found = None
        if found is None or found.format_version > FORMAT_VERSION:
            message = "the view has no watermark" if packed is None else "the view's watermark is none of this format"
            self._found.append(of_view(FindingKind.WATERMARK, f"{message}; its rows were not compared"))
            return
        self._watermark = found
        self._is_outdated = found.format_version != FORMAT_VERSION
        self._watermark_ts = found.commit_ts
        self._oldest_outcomes = keys.kept_outcome_buckets(found.commit_ts)[-1]
        if self._moment.served_head is None:
            with suppress(OSError):  # then it is not known for one
                head = LogHead(found.commit_ts, found.chain)
                self._taken_back_to = taken_back_to(self._moment.disk, self._moment.log_directory, head)

    def _judge_watermark(self, watermark: Watermark) -> Iterator[VerifyFinding]:
        served = self._moment.served_head
        fsync = self._moment.fsync or served is not None
        yield from judge_watermark(
            self._walk, watermark, self._committed_at_ns, is_taken_back=self._taken_back_to is not None, fsync=fsync
        )
        if served is None:
            yield from judge_lag(self._walk, watermark)
        elif self._watermark_ts < served.commit_ts:
            message = f"the view ends at commit_ts {self._watermark_ts}, and {served.commit_ts} was answered"
            yield of_view(FindingKind.WATERMARK, message, commit_ts=self._watermark_ts)

    def _compare(self, view: ViewSnapshot) -> Iterator[VerifyFinding | None]:
        unread = self._walk.unread
        is_unread = self._walk.is_unread if unread else None
        walk = self._view_walk = ViewWalk(
            view, self._by_view, oldest_outcomes=self._oldest_outcomes, is_unread=is_unread
        )
        for step in walk.steps():
            self._stage = ("view", self._by_view.rows, max(self._by_log.rows, self._by_view.rows))
            yield step
        self._stage = ("view", self._by_view.rows, self._by_view.rows)
        differing = self._by_log.differing(self._by_view)
        if is_unread is not None:
            first, last = unread.first, min(unread.last, self._watermark_ts)
            if first <= last:
                message = f"rows of commits from {first} to {last} that cannot be read from the log were not compared"
                if unread.rest_from is not None:
                    message += f", and in so bad a log no rows from {unread.rest_from} on"
                yield VerifyFinding(kind=FindingKind.NOT_COMPARED, message=message, is_note=True, file="state")
        if not differing and not walk.suspects:
            return
        names = RowNames(
            view,
            walk,
            differing,
            watermark_ts=self._watermark_ts,
            oldest_outcomes=self._oldest_outcomes,
            is_unread=is_unread,
        )
        again = self._log_walk(names.on_record)
        for _ in again.steps():
            self._stage = ("names", again.done_bytes, again.total_bytes)
            yield None
        yield from names.steps(again.starts)

    # What is told

    def _told(self) -> Iterator[VerifyFinding]:
        """What was found since the last time: all of it is counted, and what is not too much is given."""
        found, self._found = self._found, []
        for finding in found:
            if finding.is_note:
                self._notes += 1
            else:
                self._findings += 1
            if (self._notes if finding.is_note else self._findings) <= FINDINGS_AT_MOST:
                yield finding

    @property
    def _rows(self) -> int:
        return 0 if self._view_walk is None else self._view_walk.rows

    def _progress(self) -> VerifyProgress:
        stage, done, total = self._stage
        return VerifyProgress(stage=stage, done=done, total=total, records=self._walk.records, rows=self._rows)

    def _verdict(self) -> VerifyVerdict:
        head = self._walk.head
        return VerifyVerdict(
            sound=not self._findings,
            findings=self._findings,
            notes=self._notes,
            head=Head(head.commit_ts, head.chain, self._walk.store_id or b""),
            log_bytes=self._walk.log_bytes,
            records=self._walk.records,
            rows=self._rows,
            snapshots=self._snapshots.checked,
            heads=len(self._heads),
            seconds=round(self._clock() - self._began_s, 3),
        )
