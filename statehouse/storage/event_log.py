"""The event log: the truth of a store. Payloads in, positions out; what a payload means is not known here.

`EventLog` is all that others use: opening (`log_judging`, `log_opening`), appending (`log_writer`, which says what a
failure leaves behind), reading by pointer (`log_fetch`) or from a commit on (`log_commits`), and walking
(`log_reader`). One thread appends (`place`, `append`, `sync`, `roll_back`), any number read beside it, and one may
prepare the next segment. The format is in `docs/formats.md`.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from statehouse.errors import DiskFullError, NewerFormatError, StorageError, StoreDamagedError
from statehouse.limits import OPEN_SEGMENTS
from statehouse.storage.disk import Disk, is_full
from statehouse.storage.log_commits import LogCommits
from statehouse.storage.log_damage import Fault, damaged
from statehouse.storage.log_fetch import LogFetch, Pointer
from statehouse.storage.log_format import (
    HEADER_BYTES,
    STORE_ID_BYTES,
    LogHead,
    LogRecordAt,
    Placement,
    SegmentHeader,
    genesis_chain,
)
from statehouse.storage.log_judging import LogEnd, check_is_not_behind, check_segments, check_view_is_not_ahead
from statehouse.storage.log_opening import TailCut, list_segments, open_segments
from statehouse.storage.log_reader import SegmentScan, ViewAheadError, ViewDisagreesError, read_header
from statehouse.storage.log_writer import LogWriter
from statehouse.storage.segments import NextSegment, SegmentReaders, SyncFailedError, segment_path
from statehouse.storage.taken_back import TakenBackNote

__all__ = [
    "EventLog",
    "LogHead",
    "LogRecordAt",
    "Placement",
    "Pointer",
    "TailCut",
    "ViewAheadError",
    "ViewDisagreesError",
    "stored_id",
]


def stored_id(disk: Disk, directory: str) -> bytes | None:
    """The id of the store whose log is in `directory`, as its first segment has it; None when that cannot be told.

    Opening the log says why. Raises OSError.
    """
    try:
        first_ts = min(list_segments(disk, directory), default=None)
        if first_ts is None:
            return None
        path = segment_path(directory, first_ts)
        with closing(disk.open(path, read_only=True)) as file:
            return read_header(file, path, first_ts).store_id
    except (FileNotFoundError, IsADirectoryError, NewerFormatError, StoreDamagedError):
        return None


class EventLog:
    """An open event log. Make one with `open`; the constructor is for `open` alone."""

    def __init__(
        self, disk: Disk, directory: str, writer: LogWriter, readers: SegmentReaders, starts: list[int], store_id: bytes
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._writer = writer
        self._readers = readers
        self._starts = starts
        fetch = LogFetch(readers, directory, starts, self._whole_until)
        self._read = fetch.read
        self._read_many = fetch.read_many
        self._store_id = store_id
        self.commits = LogCommits(disk, directory, starts)
        """Reading from a commit on, up to one that is durable."""

    @classmethod
    def open(
        cls,
        disk: Disk,
        directory: str,
        *,
        segment_bytes: int,
        max_bytes: int,
        known_good: LogHead | None,
        verify_all: bool,
        fsync: bool,
        report: Callable[[TailCut], None],
        new_store_id: Callable[[], bytes],
        on_record: Callable[[LogRecordAt], None],
        synced_ts: int = 0,
        open_limit: int = OPEN_SEGMENTS,
    ) -> "EventLog":
        """Open the log in `directory`, or begin one there with the 16 bytes of `new_store_id`.

        `known_good` is the view's watermark, or a head before it that the view bears witness to: records up to it need
        not be found again (None: there is no view), and the check begins in its segment; `verify_all` checks every
        record there is. `on_record` is called for each verified record after it, in order; damage may be found after
        some of these calls. A torn tail is cut and told to `report`; up to `synced_ts` nothing is torn, because
        something else says that these commits were synced.
        `max_bytes` limits `size_bytes`, 0 does not. Without `fsync` a group is not made durable, but a segment is
        before the next one begins. `open_limit` is how many segments are kept open for reading.

        Blocks for as long as reading what is checked takes. Raises StoreDamagedError (also when the log ends before
        `known_good`), NewerFormatError, ViewDisagreesError (the chain value at `known_good` is another, or, without
        `fsync`, the log ends before it; before any `on_record`), DiskFullError, and StorageError for any other failure
        of the disk.
        """
        if segment_bytes <= HEADER_BYTES:
            raise ValueError(f"a segment needs more than {HEADER_BYTES} bytes, not {segment_bytes}")
        following, note = NextSegment(disk, directory), TakenBackNote(disk, directory)
        try:
            if not disk.exists(directory):
                disk.make_dir(directory)
            # Also of a directory that is there: whoever made it may have died before its name was durable.
            disk.sync_dir(directory.rpartition("/")[0] or ("/" if directory.startswith("/") else "."))
            following.remove()
            starts = list_segments(disk, directory)
            # failpoint: open.log_listed
            if not starts:
                nothing = LogEnd(segment_path(directory, 1), 0, LogHead(0, b""))
                check_view_is_not_ahead(nothing, known_good, may_lose_commits=False)
                check_is_not_behind(nothing, synced_ts)
                store_id = new_store_id()
                if len(store_id) != STORE_ID_BYTES:
                    raise ValueError(f"a store id has {STORE_ID_BYTES} bytes, not {len(store_id)}")
                file, _ = following.install(SegmentHeader(store_id, 1, genesis_chain(store_id)), segment_bytes)
                # failpoint: open.first_segment_made
                file.close()
                starts = [1]
            try:
                opened = open_segments(
                    disk,
                    directory,
                    starts,
                    known_good=known_good,
                    synced_ts=synced_ts,
                    verify_all=verify_all,
                    fsync=fsync,
                    report=report,
                    on_record=on_record,
                )
            except ViewDisagreesError:
                # The view is given up for what the log says: that must not be a log that is refused afterwards.
                check_segments(disk, directory, starts, synced_ts=synced_ts, fsync=fsync)
                raise
            try:
                note.prepare()
            except OSError:
                opened.active.file.close()
                raise
        except (OSError, SyncFailedError) as error:
            kind = DiskFullError if isinstance(error, OSError) and is_full(error) else StorageError
            raise kind(f"the event log in {directory} cannot be opened: {error}") from error
        readers = SegmentReaders(disk, directory, open_limit)
        writer = LogWriter(
            directory, opened, following, readers, note, segment_bytes=segment_bytes, max_bytes=max_bytes, fsync=fsync
        )
        return cls(disk, directory, writer, readers, opened.starts, opened.store_id)

    @property
    def head(self) -> LogHead:
        """The last commit appended, synced or not, and the chain value there."""
        return self._writer.head

    @property
    def store_id(self) -> bytes:
        """The 16 bytes that name this store."""
        return self._store_id

    @property
    def size_bytes(self) -> int:
        """What the headers and records of all segments take; space that is only preallocated is not counted."""
        return self._writer.size_bytes

    @property
    def poisoned(self) -> bool:
        """Whether a failure has ended all appending until the next open. Reading goes on."""
        return self._writer.poisoned

    # Writing: one thread at a time

    def place(self, sizes: Sequence[int]) -> list[Placement]:
        """Where the next `append` of payloads of these sizes (bytes) will put them.

        Begins a new segment if it must, so it may raise as `append` does.
        """
        return self._writer.place(sizes)

    def append(self, payloads: Sequence[bytes]) -> list[Placement]:
        """Write a group at the head, not synced. Commit timestamps follow the head's, one a payload.

        DiskFullError (the disk, or `max_bytes`): nothing has happened. LogPoisonedError: the outcome is unknown, and no
        append succeeds any more. ValueError: a payload is too long or does not begin as a record must; nothing has
        happened. Blocks for the write, and for making and syncing a segment when the next was not prepared.
        """
        return self._writer.append(payloads)

    def sync(self) -> None:
        """Make everything appended durable (fdatasync); nothing to do without `fsync`. LogPoisonedError if it fails."""
        self._writer.sync()

    def roll_back(self) -> None:
        """Undo the last append, synced or not: zeros over it, synced, and the head as it was.

        For a caller that could not apply the group, and whose view may have it all the same: that is noted first
        (`taken_back`). LogPoisonedError if it fails. RuntimeError when there is nothing to undo: the last append failed
        or was undone before, or `place` has been called since.
        """
        self._writer.roll_back()

    # Reading: any thread

    def read(self, commit_ts: int, offset: int, size: int, crc: int) -> bytes:
        """`size` bytes at `offset` of the segment that holds `commit_ts`, checked against their CRC-32.

        Raises StoreDamagedError, which names file, offset and commit_ts, when the log is damaged, ViewDamagedError when
        the log is whole and the pointer is wrong, and StorageError when the bytes cannot be read.
        """
        return self._read(commit_ts, offset, size, crc)

    def read_many(self, pointers: Sequence[Pointer]) -> list[bytes]:
        """As `read` for many (commit_ts, offset, length, crc), in their order; neighbours are read in one go."""
        return self._read_many(pointers)

    def records(self, after: int) -> Iterator[LogRecordAt]:
        """Every record with commit_ts > `after`, verified, up to the head at the time of the call.

        Raises StoreDamagedError and StorageError when it gets there. Holds one file open; close() on the iterator gives
        it back.
        """
        return self._records(after, self.head.commit_ts, list(self._starts))

    # The next segment: one thread, beside the one that appends

    @property
    def next_segment_needed(self) -> bool:
        """Whether `prepare_next_segment` has something to do: the active segment is half full, and nothing is ready."""
        return self._writer.is_next_needed

    def prepare_next_segment(self) -> None:
        """Allocate the next segment ahead of time, so that no commit waits for it. OSError leaves all as it was."""
        self._writer.prepare_next()

    def close(self) -> None:
        """Sync what is not (without `fsync` as well) and give all files back. LogPoisonedError if the sync fails."""
        try:
            self._writer.close()
        finally:
            self._readers.close()

    def _whole_until(self, commit_ts: int, last_ts: int) -> int:
        whole_ts = 0
        last_ts = min(last_ts, self.head.commit_ts)
        if commit_ts > last_ts:
            return whole_ts
        # With places of its own: what is read here may be taken back, and must not be gone on from.
        commits = LogCommits(self._disk, self._directory, self._starts)
        try:
            with closing(commits.records(commit_ts, last_ts)) as records:
                for record in records:
                    whole_ts = record.commit_ts
        except StoreDamagedError:
            if whole_ts < commit_ts:
                raise
        return whole_ts

    def _records(self, after: int, last_ts: int, starts: list[int]) -> Iterator[LogRecordAt]:
        previous: SegmentScan | None = None
        for first_ts in starts[max(bisect_right(starts, after + 1) - 1, 0) :]:
            if max(first_ts, after + 1) > last_ts:
                return
            path = segment_path(self._directory, first_ts)
            try:
                with closing(self._disk.open(path, read_only=True)) as file:
                    scan = SegmentScan(file, path, read_header(file, path, first_ts))
                    if previous is not None and (previous.commit_ts + 1, previous.chain) != (first_ts, scan.chain):
                        raise damaged(path, Fault(0, first_ts, f"the segment does not follow {previous.path}"))
                    yield from scan.records(after, stop_at=last_ts)
            except OSError as error:
                raise StorageError(f"{path}: cannot be read: {error}") from error
            if scan.fault is not None and scan.fault.commit_ts <= self.head.commit_ts:  # else rolled back meanwhile
                raise damaged(path, scan.fault)
            previous = scan
        if previous is not None and previous.commit_ts < min(last_ts, self.head.commit_ts):
            raise damaged(previous.path, Fault(previous.end, previous.commit_ts + 1, "the segment ends too early"))
