"""Appending to the event log: the head, the active segment, and what becomes of both when the disk fails.

A group of payloads is chained, joined and written at the head with one call, in one segment; `sync` makes it durable.
Whatever fails leaves the log in one of two conditions: **exact** (as before the call, on disk too) or **poisoned**
(every later append is refused; the next open finds out from the disk). In the order of a commit:

* The next segment cannot be made for want of room: the half-made file is removed. Exact.
* A group cannot be written for want of room: zeros over what was written, synced. Exact, or poisoned if that fails.
* A write fails in any other way, or any sync fails: poisoned. A failed sync is never tried again.
* The caller could not apply a group that is appended: `roll_back` notes that (`taken_back`), and does the same as for
  want of room. Exact, or poisoned if either fails.

All state of the head lives here and nowhere else. One thread at a time calls what writes; `head` may be read by any.
"""

from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from typing import NoReturn

from attrs import frozen

from statehouse.errors import DiskFullError, LogPoisonedError, StorageError
from statehouse.storage.disk import is_full
from statehouse.storage.log_format import (
    AFTER_SYNC,
    HEADER_BYTES,
    LENGTH,
    MAX_PAYLOAD_BYTES,
    PAYLOAD_START,
    RECORD_OVERHEAD_BYTES,
    LogHead,
    Placement,
    SegmentHeader,
)
from statehouse.storage.log_opening import OpenedLog
from statehouse.storage.log_reader import zero_range
from statehouse.storage.segments import (
    ActiveSegment,
    NextSegment,
    SegmentReaders,
    SyncFailedError,
    segment_path,
    sync_or_fail,
)
from statehouse.storage.taken_back import TakenBackNote

__all__ = ["LogWriter"]


@frozen
class _LastAppend:
    head_before: LogHead
    start: int
    size: int


class LogWriter:
    """The writing half of an open EventLog, which documents what is public of it."""

    def __init__(
        self,
        directory: str,
        opened: OpenedLog,
        following: NextSegment,
        readers: SegmentReaders,
        note: TakenBackNote,
        *,
        segment_bytes: int,
        max_bytes: int,
        fsync: bool,
    ) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._max_bytes = max_bytes
        self._fsync = fsync
        self._starts = opened.starts  # readers look into the same list
        self._active = opened.active
        self._next = following
        self._readers = readers
        self._note = note
        self._store_id = opened.store_id
        self._unsynced = not fsync
        self._last: _LastAppend | None = None
        self._closed = False
        self.head = opened.head
        self.size_bytes = opened.sealed_bytes + opened.active.end
        self.poisoned = False

    def place(self, sizes: Sequence[int]) -> list[Placement]:
        self._last = None
        self._make_room(sum(sizes) + RECORD_OVERHEAD_BYTES * len(sizes))
        return self._placements(sizes)

    def append(self, payloads: Sequence[bytes]) -> list[Placement]:
        self._last = None  # or a roll_back after a failed append would undo the group before, which was answered
        parts: list[bytes] = []
        sizes: list[int] = []
        chain = self.head.chain
        # Without fsync nothing may claim that what is before it was synced; nor when the caller did not sync.
        flag = AFTER_SYNC if self._fsync and not self._unsynced else 0
        pack = LENGTH.pack
        for payload in payloads:
            size = len(payload)
            if not payload.startswith(PAYLOAD_START) or size > MAX_PAYLOAD_BYTES:
                raise ValueError(f"a payload of {size} bytes that begins {payload[:1]!r} cannot be a record")
            length_field = pack(size | flag)
            flag = 0
            # As log_format.encode_record; inline, because this loop is the cost of a commit.
            chain = sha256(chain + length_field + payload).digest()
            parts += (length_field, chain, payload)
            sizes.append(size)
        group = b"".join(parts)
        self._make_room(len(group))
        placements = self._placements(sizes)
        active, before = self._active, self.head
        try:
            # failpoint: log.writing
            active.file.write_at(active.end, group)
            # failpoint: log.written
        except OSError as error:
            if not is_full(error):
                self._poison("a write to the event log failed", error)
            self._erase(active.end, len(group))
            raise DiskFullError(f"no room for {len(group)} bytes in the event log: {error}") from error
        self._last = _LastAppend(before, active.end, len(group))
        active.end += len(group)
        self.size_bytes += len(group)
        self._unsynced = True
        self.head = LogHead(before.commit_ts + len(sizes), chain)
        return placements

    def sync(self) -> None:
        self._check_writable()
        if self._fsync:
            self._sync_active()

    def roll_back(self) -> None:
        self._check_writable()
        last, self._last = self._last, None
        if last is None:
            raise RuntimeError("there is no append to roll back")
        try:
            self._note.write(self.head, last.head_before)
        except OSError as error:
            self._poison("a group that is to be taken back could not be noted", error)
        self._erase(last.start, last.size)
        self._active.end = last.start
        self.size_bytes -= last.size
        self.head = last.head_before

    @property
    def is_next_needed(self) -> bool:
        left = self._active.capacity - self._active.end
        return (
            left < self._segment_bytes // 2
            and not (self._max_bytes and self._max_bytes - self.size_bytes < left)
            and not self._next.is_prepared
            and not self.poisoned
            and not self._closed
        )

    def prepare_next(self) -> None:
        if not self.poisoned:
            self._next.prepare(self._segment_bytes)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if not self.poisoned:
                self._sync_active()
        finally:
            self._next.close()
            with suppress(OSError):  # it is synced, or poisoned already
                self._active.file.close()

    def _check_writable(self) -> None:
        if self.poisoned:
            raise LogPoisonedError("the event log takes no commits since a write or sync of it failed; start again")
        if self._closed:
            raise StorageError("the event log is closed")

    def _poison(self, what: str, error: Exception) -> NoReturn:
        self.poisoned = True
        raise LogPoisonedError(f"{what}: {error}; no commit is taken until the daemon is started again") from error

    def _placements(self, sizes: Sequence[int]) -> list[Placement]:
        segment, offset = self._active.first_ts, self._active.end + RECORD_OVERHEAD_BYTES
        placements = []
        for size in sizes:
            placements.append(Placement(segment, offset))
            offset += size + RECORD_OVERHEAD_BYTES
        return placements

    def _sync_active(self) -> None:
        if not self._unsynced:
            return
        try:
            # failpoint: log.syncing
            self._active.file.sync()
        except OSError as error:
            self._poison("a sync of the event log failed", error)
        self._unsynced = False

    def _erase(self, start: int, size: int) -> None:
        """Zeros over a group, synced: a reader must never find it again."""
        try:
            # failpoint: log.erasing
            zero_range(self._active.file, start, start + size)
            # failpoint: log.erased
            self._active.file.sync()
        except OSError as error:
            self._poison("a group could not be taken back from the event log", error)
        self._unsynced = False

    def _make_room(self, group_bytes: int) -> None:
        """See to it that a group fits the active segment, and the limit."""
        self._check_writable()
        active = self._active
        is_rotation = active.end + group_bytes > active.capacity
        grown = self.size_bytes + group_bytes + (HEADER_BYTES if is_rotation else 0)
        if self._max_bytes and grown > self._max_bytes:
            raise DiskFullError(
                f"the event log may take {self._max_bytes} bytes (STATEHOUSE_MAX_LOG_SIZE) and would take {grown}",
                details={"limit": str(self._max_bytes), "size": str(grown)},
            )
        if is_rotation:
            self._rotate(max(self._segment_bytes, HEADER_BYTES + group_bytes))

    def _rotate(self, capacity: int) -> None:
        # Also without fsync: only the last segment may have a torn tail.
        self._sync_active()
        # failpoint: rotation.begun
        old, first_ts = self._active, self.head.commit_ts + 1
        try:
            header = SegmentHeader(self._store_id, first_ts, self.head.chain)
            file, capacity = self._next.install(header, capacity)
        except SyncFailedError as error:
            self._poison("a sync of the event log's next segment failed", error)
        except OSError as error:
            if is_full(error):
                raise DiskFullError(f"no room for the event log's next segment: {error}") from error
            self._poison("the event log's next segment could not be made", error)
        self._last = None
        self._active = ActiveSegment(first_ts, file, segment_path(self._directory, first_ts), HEADER_BYTES, capacity)
        # failpoint: rotation.installed
        try:
            if old.first_ts == first_ts:
                # The old one had no record yet and was too small for this group: the new one has taken its place.
                self._readers.forget(first_ts)
            else:
                self._starts.append(first_ts)
                self.size_bytes += HEADER_BYTES
                self._trim(old)
        finally:
            with suppress(OSError):  # it is synced
                old.file.close()

    def _trim(self, sealed: ActiveSegment) -> None:
        try:
            # failpoint: rotation.trimming
            sealed.file.truncate(sealed.end)
            # failpoint: rotation.trimmed
            sync_or_fail(sealed.file.sync)
        except OSError as error:
            # Copy-on-write file systems need room to free room. Zeros there are legal, and the next open trims them.
            if not is_full(error):
                self._poison("a full segment of the event log could not be trimmed", error)
        except SyncFailedError as error:
            self._poison("a sync of the event log failed", error)
