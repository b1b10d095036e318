"""Files as storage sees them: a narrow protocol, and the real thing behind it.

All file access of the event log and of snapshots goes through `Disk` and `File`, so that every recovery path can be
tried byte by byte on `statehouse.storage.simdisk.SimulatedDisk`, which keeps the same promises in memory and breaks
them on request. The promises:

* What was written can be read at once, by every handle of the file.
* It survives power loss only after `File.sync`; a new, renamed or removed name only after `Disk.sync_dir`.
* A sync that failed is never tried again: the kernel may have marked the lost pages as clean, and a second sync would
  then report success for bytes that are gone. No caller of this module retries one.
* Failures are plain `OSError`s with `errno` and, where it is known, `filename`. What they mean is the caller's to say.

Calls block on the disk and cannot be cancelled. They may be made from any thread; two threads may read through one
handle at once, because reads carry their own offset.
"""

# This is the layer that pathlib stands on, and its paths are strings.
# ruff: noqa: PTH102, PTH104, PTH108, PTH208

import errno
import os
import stat
from typing import Final, Protocol

__all__ = ["Disk", "File", "RealDisk", "RealFile", "is_full"]

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_FILE_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o700


def is_full(error: OSError) -> bool:
    """Whether the error says that there is no room (disk, quota, file size limit), not that something is broken."""
    return error.errno in _FULL


class File(Protocol):
    """An open file. Offsets and sizes are bytes."""

    def write_at(self, offset: int, chunk: bytes) -> None:
        """Write all of `chunk`, or raise OSError: then any part of it may have been written."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Read `size` bytes; fewer only when the file ends before."""

    def size(self) -> int:
        """The file's size as written, synced or not."""

    def truncate(self, size: int) -> None:
        """Cut the file to `size`, or lengthen it with zeros."""

    def sync(self) -> None:
        """Make everything written to the file durable, its size included. Never call it again after it failed."""

    def close(self) -> None:
        """Give the handle back. Closing twice does nothing; anything else on a closed handle is OSError(EBADF)."""


class Disk(Protocol):
    """The directory operations that storage needs. Paths are strings with `/`."""

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> File:
        """Open a file: as it is, or, with `create`, empty, whether or not there was one (as `open(path, "wb")` does).

        Raises FileNotFoundError without `create` when it is missing, IsADirectoryError, and other OSErrors.
        """

    def list_dir(self, path: str) -> list[str]:
        """The names in a directory, in no particular order. FileNotFoundError when it is missing."""

    def make_dir(self, path: str) -> None:
        """Make one directory. FileExistsError when there is something, FileNotFoundError without a parent."""

    def rename(self, old: str, new: str) -> None:
        """Rename at once for every reader, replacing a file that is called `new`."""

    def remove(self, path: str) -> None:
        """Remove a file. Handles that are open on it stay good."""

    def exists(self, path: str) -> bool:
        """Whether there is a file or directory of this name."""

    def sync_dir(self, path: str) -> None:
        """Make the creates, renames and removes in a directory durable. Never call it again after it failed."""

    def free_bytes(self, path: str) -> int:
        """How much an unprivileged process can still write to the file system of `path`."""


class RealFile:
    """A file descriptor behind the `File` protocol."""

    __slots__ = ("_descriptor", "_path")

    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor = descriptor
        self._path = path

    def write_at(self, offset: int, chunk: bytes) -> None:
        # The interpreter repeats a call that a signal interrupted (PEP 475). A short write is gone on with: when the
        # disk is full, the next one says so.
        try:
            written = os.pwrite(self._descriptor, chunk, offset)
            if written == len(chunk):
                return
            rest = memoryview(chunk)
            count = written
            while count and written < len(chunk):
                count = os.pwrite(self._descriptor, rest[written:], offset + written)
                written += count
        except OSError as error:
            error.filename = self._path
            raise
        if written < len(chunk):
            raise OSError(errno.ENOSPC, "the disk takes no more bytes", self._path)

    def read_at(self, offset: int, size: int) -> bytes:
        try:
            chunk = os.pread(self._descriptor, size, offset)
            if len(chunk) == size:
                return chunk
            # Linux returns at most about 2 GiB a call, and some file systems return less than asked for.
            parts = [chunk]
            missing = size - len(chunk)
            while chunk and missing:
                chunk = os.pread(self._descriptor, missing, offset + size - missing)
                parts.append(chunk)
                missing -= len(chunk)
        except OSError as error:
            error.filename = self._path
            raise
        return b"".join(parts)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def truncate(self, size: int) -> None:
        try:
            os.ftruncate(self._descriptor, size)
        except OSError as error:
            error.filename = self._path
            raise

    def sync(self) -> None:
        if self._descriptor < 0:  # the one call that would answer a ValueError
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self._path)
        try:
            _sync(self._descriptor)
        except OSError as error:
            error.filename = self._path
            raise

    def close(self) -> None:
        # The number is forgotten first: the kernel gives it to the next file that anyone opens, also when close fails.
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class RealDisk:
    """The file system of this machine. Files and directories that it makes are for their owner alone."""

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> RealFile:
        # O_NONBLOCK: opening a named pipe would wait for its other end, and hold up whoever waits for this thread.
        flags = os.O_CLOEXEC | os.O_NONBLOCK | (os.O_RDONLY if read_only else os.O_RDWR)
        if create:
            flags |= os.O_CREAT | os.O_TRUNC
        descriptor = os.open(path, flags, _FILE_MODE)
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):  # reading a directory fails only when it is read
            os.close(descriptor)
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            raise OSError(errno.EINVAL, "it is not a file", path)
        return RealFile(descriptor, path)

    def list_dir(self, path: str) -> list[str]:
        return os.listdir(path)

    def make_dir(self, path: str) -> None:
        os.mkdir(path, _DIRECTORY_MODE)

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new)

    def remove(self, path: str) -> None:
        os.unlink(path)

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def sync_dir(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            error.filename = path
            raise
        finally:
            os.close(descriptor)

    def free_bytes(self, path: str) -> int:
        filesystem = os.statvfs(path)
        return filesystem.f_bavail * filesystem.f_frsize


def _sync(descriptor: int) -> None:
    # fdatasync writes the size too when it changed, and leaves out the times, which nobody here reads.
    if hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:  # pragma: no cover - not on Linux
        os.fsync(descriptor)
