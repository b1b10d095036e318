"""The files of the event log: making segments ahead of time, and reading from many of them at once.

`NextSegment` owns `log/next.tmp`: a segment is prepared there (its zeros written and synced, so that appending to it
changes no metadata and a sync of it is cheap) and only then gets its name, by a rename. A segment under its own name is
therefore always whole: header synced, space allocated. `SegmentReaders` owns every handle that is read from. The active
segment's own handle, for writing, is the EventLog's.
"""

import errno
import os
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Final

from attrs import define

from statehouse.errors import StorageError
from statehouse.limits import MIB, READ_CHUNK_BYTES
from statehouse.storage.disk import Disk, File
from statehouse.storage.log_format import NEXT_SEGMENT_NAME, SegmentHeader, encode_header, segment_name

__all__ = ["ActiveSegment", "NextSegment", "SegmentReaders", "SyncFailedError", "segment_path", "sync_or_fail"]

_ZEROS: Final = bytes(MIB)


class SyncFailedError(Exception):
    """A sync that the commit path stands on has failed: what is on disk is not known any more."""


@define
class ActiveSegment:
    """The segment that is appended to. `end` is the offset behind its last record, `capacity` the size of its file."""

    first_ts: int
    file: File
    path: str
    end: int
    capacity: int


def segment_path(directory: str, first_ts: int) -> str:
    """Where the segment that begins at `first_ts` is."""
    return f"{directory}/{segment_name(first_ts)}"


def sync_or_fail(sync: Callable[[], None]) -> None:
    """Call `sync` and raise SyncFailedError for its OSError, so that no handler takes it for a failure to undo."""
    try:
        sync()
    except OSError as error:
        raise SyncFailedError(str(error)) from error


class NextSegment:
    """The segment after the active one: prepared by a background thread, or made when it is needed.

    Its lock lets `prepare` run in one thread beside `install` in another: who comes second waits, and finds the work
    done.
    """

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._directory = directory
        self._path = f"{directory}/{NEXT_SEGMENT_NAME}"
        self._lock = Lock()
        self._prepared: tuple[File, int] | None = None
        self._closed = False

    @property
    def is_prepared(self) -> bool:
        return self._prepared is not None

    def prepare(self, size_bytes: int) -> None:
        """Write and sync the zeros of the next segment, unless that is done. OSError leaves no file behind."""
        with self._lock:
            if self._prepared is not None or self._closed:
                return
            file = self._make(size_bytes)
            try:
                # failpoint: segment.preparing
                file.sync()
            except OSError:
                self._discard(file)
                raise
            self._prepared = file, size_bytes
            # failpoint: segment.prepared

    def install(self, header: SegmentHeader, size_bytes: int) -> tuple[File, int]:
        """Give the prepared segment, or a new one of at least `size_bytes`, its header and its name, durably.

        Returns its file and its size. OSError: nothing has changed. SyncFailedError: the name may or may not be there.
        """
        with self._lock:
            file, capacity = self._take(size_bytes)
            try:
                file.write_at(0, encode_header(header))
                # failpoint: segment.header_written
                sync_or_fail(file.sync)
                # failpoint: segment.header_synced
                self._disk.rename(self._path, segment_path(self._directory, header.first_ts))
                # failpoint: segment.renamed
            except (OSError, SyncFailedError):
                self._discard(file)
                raise
            try:
                sync_or_fail(lambda: self._disk.sync_dir(self._directory))
            except SyncFailedError:
                file.close()
                raise
        return file, capacity

    def remove(self) -> None:
        """Remove what is prepared, or what a crash has left: nobody knows how much of that was written."""
        with self._lock:
            self._remove()

    def close(self) -> None:
        """As `remove`, and prepare nothing more. A file that cannot be removed is left for the next open."""
        with self._lock, suppress(OSError):
            self._closed = True
            self._remove()

    def _remove(self) -> None:
        if self._prepared is not None:
            file, _ = self._prepared
            self._prepared = None
            file.close()
        if self._disk.exists(self._path):
            self._disk.remove(self._path)

    def _take(self, size_bytes: int) -> tuple[File, int]:
        if self._prepared is not None:
            (file, capacity), self._prepared = self._prepared, None
            if capacity >= size_bytes:
                return file, capacity
            file.close()  # too small for this group; made anew over it
        file = self._make(size_bytes)
        try:
            sync_or_fail(file.sync)
        except SyncFailedError:
            self._discard(file)
            raise
        return file, size_bytes

    def _make(self, size_bytes: int) -> File:
        # Written and not fallocate'd: the first write into an unwritten extent changes metadata, and a sync of it
        # costs a journal commit (measured; see docs/formats.md).
        file = self._disk.open(self._path, create=True)
        try:
            self._check_room(size_bytes)
            for offset in range(0, size_bytes, MIB):
                file.write_at(offset, _ZEROS[: size_bytes - offset])
                # failpoint: segment.zeros_written
        except OSError:
            self._discard(file)
            raise
        return file

    def _check_room(self, size_bytes: int) -> None:
        # Found out by writing, it would take the last room from the commits, and from everybody, at each attempt.
        if self._disk.free_bytes(self._directory) < size_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)

    def _discard(self, file: File) -> None:
        with suppress(OSError):  # the failure that led here is the one to tell; the next open removes the file too
            file.close()
            self._disk.remove(self._path)


@define(eq=False)
class _Reader:
    file: File
    readers: int = 0
    evicted: bool = False


class SegmentReaders:
    """Read-only handles on segments, the most recently used `limit` of them, shared by all threads.

    A handle that is evicted while a thread reads from it is closed when that thread is done.
    """

    def __init__(self, disk: Disk, directory: str, limit: int) -> None:
        self._disk = disk
        self._directory = directory
        self._limit = limit
        self._lock = Lock()
        self._open: OrderedDict[int, _Reader] = OrderedDict()
        self._closed = False

    def read(self, first_ts: int, offset: int, size: int) -> bytes:
        """`size` bytes at `offset` of the segment that begins at `first_ts`; fewer at its end. Raises OSError."""
        reader = self._acquire(first_ts)
        try:
            if size > READ_CHUNK_BYTES:  # what a damaged pointer asks for must not be set aside before it is known
                size = min(size, max(reader.file.size() - offset, 0))
            return reader.file.read_at(offset, size)
        finally:
            self._release(reader)

    def forget(self, first_ts: int) -> None:
        """Close the handle on a segment whose file was replaced."""
        with self._lock:
            reader = self._open.pop(first_ts, None)
            if reader is not None:
                self._evict(reader)

    def close(self) -> None:
        """Close every handle, those in use as soon as their reads are done; a later read is a StorageError."""
        with self._lock:
            self._closed = True
            while self._open:
                self._evict(self._open.popitem()[1])

    def _acquire(self, first_ts: int) -> _Reader:
        with self._lock:
            reader = self._open.get(first_ts)
            if reader is None:
                if self._closed:
                    raise StorageError("the event log is closed")
                reader = _Reader(self._disk.open(segment_path(self._directory, first_ts), read_only=True))
                self._open[first_ts] = reader
                if len(self._open) > self._limit:
                    self._evict(self._open.popitem(last=False)[1])
            else:
                self._open.move_to_end(first_ts)
            reader.readers += 1
            return reader

    def _release(self, reader: _Reader) -> None:
        with self._lock:
            reader.readers -= 1
            if reader.evicted and not reader.readers:
                reader.file.close()

    @staticmethod
    def _evict(reader: _Reader) -> None:
        reader.evicted = True
        if not reader.readers:
            reader.file.close()
