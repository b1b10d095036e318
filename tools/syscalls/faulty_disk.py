"""A `Disk` that fails at a call, and that sees whether its caller does what no caller may do after a failed sync.

It stands before another disk. A write that is struck writes as much first as the fault says; a sync that is struck on a
SimulatedDisk leaves its pages as a kernel does, taken for clean. What callers may not do, whatever failed: sync a file
again after a sync of it failed, write to it or give it a name; and keep a file open that they have no use for.
"""

import os
import posixpath

from statehouse.storage.disk import Disk, File
from statehouse.storage.simdisk import SimulatedDisk
from syscalls.calls import Fault, Kind, Striker

__all__ = ["FaultyDisk"]


class FaultyFile:
    """An open file: the `File` protocol."""

    def __init__(self, disk: "FaultyDisk", file: File, path: str) -> None:
        self._disk = disk
        self._file = file
        self.path = path
        """As it is called now: a rename changes it."""
        disk.open_files.append(self)

    def write_at(self, offset: int, chunk: bytes) -> None:
        fault = self._disk.striker.called(Kind.WRITE, self.path, start=offset, stop=offset + len(chunk))
        self._disk.check_written(self.path)
        if fault is not None:
            self._file.write_at(offset, chunk[: fault.written.of(len(chunk))])
            raise _error(fault, self.path)
        self._file.write_at(offset, chunk)

    def read_at(self, offset: int, size: int) -> bytes:
        self._disk.strike(Kind.READ, self.path)
        return self._file.read_at(offset, size)

    def size(self) -> int:
        return self._file.size()

    def truncate(self, size: int) -> None:
        self._disk.strike(Kind.TRUNCATE, self.path)
        self._file.truncate(size)

    def sync(self) -> None:
        fault = self._disk.striker.called(Kind.SYNC, self.path)
        self._disk.check_synced(self.path)
        if fault is not None:
            self._disk.sync_failed(self.path, self._file, fault)
        self._file.sync()

    def close(self) -> None:
        if self in self._disk.open_files:
            self._disk.open_files.remove(self)
        self._file.close()


class FaultyDisk:
    """The `Disk` protocol before another disk. For one thread at a time."""

    def __init__(self, inner: Disk, striker: Striker) -> None:
        self.inner = inner
        self.striker = striker
        self.wrong: list[str] = []
        """What a caller did and may not do."""
        self.open_files: list[FaultyFile] = []
        self._unsynced: set[str] = set()
        """Files that a sync has failed for."""

    def forgotten(self) -> list[str]:
        """Begin a new life of the caller: what was wrong with the one before, files that it has left open included."""
        wrong, self.wrong = self.wrong, []
        wrong += [f"{file.path} was left open" for file in self.open_files]
        self.open_files.clear()
        self._unsynced.clear()
        return wrong

    # The protocol

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> FaultyFile:
        fault = self.striker.called(Kind.OPEN, path, reads=read_only)
        if fault is not None:
            raise _error(fault, path)
        if create:
            self._unsynced.discard(path)
        return FaultyFile(self, self.inner.open(path, create=create, read_only=read_only), path)

    def list_dir(self, path: str) -> list[str]:
        self.strike(Kind.LIST_DIR, path)
        return self.inner.list_dir(path)

    def make_dir(self, path: str) -> None:
        self.strike(Kind.MAKE_DIR, path)
        self.inner.make_dir(path)

    def rename(self, old: str, new: str) -> None:
        self.strike(Kind.RENAME, old)
        if old in self._unsynced:
            self.wrong.append(f"{old} became {new} after a sync of it had failed")
        self.inner.rename(old, new)
        for file in self.open_files:
            if file.path == old:
                file.path = new

    def remove(self, path: str) -> None:
        self.strike(Kind.REMOVE, path)
        self._unsynced.discard(path)
        self.inner.remove(path)

    def exists(self, path: str) -> bool:
        return self.inner.exists(path)

    def sync_dir(self, path: str) -> None:
        self.strike(Kind.SYNC_DIR, path)
        self.inner.sync_dir(path)

    def free_bytes(self, path: str) -> int:
        return self.inner.free_bytes(path)

    # For its files

    def strike(self, kind: Kind, path: str) -> None:
        """Count a call, and raise what strikes it."""
        fault = self.striker.called(kind, path)
        if fault is not None:
            raise _error(fault, path)

    def sync_failed(self, path: str, file: File, fault: Fault) -> None:
        """A sync of a file fails. Raises its error."""
        self._unsynced.add(path)
        if isinstance(self.inner, SimulatedDisk):
            self.inner.fail_next("sync", _error(fault, path))
            file.sync()
        raise _error(fault, path)

    def check_synced(self, path: str) -> None:
        """A file is about to be synced."""
        if path in self._unsynced:
            self.wrong.append(f"{path} was synced again after a sync of it had failed")

    def check_written(self, path: str) -> None:
        """A file is about to be written."""
        if path in self._unsynced:
            self.wrong.append(f"{path} was written to after a sync of it had failed")


def _error(fault: Fault, path: str) -> OSError:
    return OSError(fault.number, os.strerror(fault.number), posixpath.normpath(path))
