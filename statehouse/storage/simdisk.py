"""A disk in memory that keeps the promises of `Disk`, and knows what it would keep of them when the power fails.

Every file remembers, for each sector written since its last sync, what the sector held before; every directory
remembers the creates, renames and removes since its last sync. `SimulatedDisk.crash` draws a disk as it may be found
after power loss: some of those sectors, some of those entries. Tests inject faults (`fail_next`, `flip_bit`,
`capacity_bytes`); without any it is the store behind STATEHOUSE_USE_MEMORY.

One lock guards a whole disk; all methods may be called from any thread.
"""

import errno
import os
from collections import Counter
from random import Random
from threading import RLock
from typing import Final

from attrs import define

from statehouse.storage.simmedium import TEARS_BYTES, DirectoryOnMedium, FileOnMedium, used_bytes

__all__ = ["SimulatedDisk", "SimulatedFile"]

_UNLIMITED_BYTES: Final = 1 << 40


@define
class _Fault:
    operation: str
    error: OSError
    after: int
    path: str | None
    partial_bytes: int


class SimulatedFile:
    """An open file of a SimulatedDisk: the `File` protocol."""

    __slots__ = ("_closed", "_disk", "_file", "_path", "_read_only")

    def __init__(self, disk: "SimulatedDisk", file: FileOnMedium, path: str, *, read_only: bool) -> None:
        self._disk = disk
        self._file = file
        self._path = path
        self._read_only = read_only
        self._closed = False

    def write_at(self, offset: int, chunk: bytes) -> None:
        with self._disk.lock:
            self._check_open(writing=True)
            fault = self._disk.take_fault("write", self._path)
            if fault is not None:
                self._write(offset, chunk[: fault.partial_bytes])
                raise _renewed(fault.error, self._path)
            self._write(offset, chunk)

    def read_at(self, offset: int, size: int) -> bytes:
        with self._disk.lock:
            self._check_open()
            self._disk.raise_fault("read", self._path)
            return bytes(memoryview(self._file.content)[offset : offset + size])

    def size(self) -> int:
        with self._disk.lock:
            self._check_open()
            return len(self._file.content)

    def truncate(self, size: int) -> None:
        with self._disk.lock:
            self._check_open(writing=True)
            self._disk.raise_fault("truncate", self._path)
            if size - len(self._file.content) > self._disk.room():
                raise _error(errno.ENOSPC, self._path)
            self._file.resize(size)

    def sync(self) -> None:
        with self._disk.lock:
            self._check_open()
            fault = self._disk.take_fault("sync", self._path)
            if fault is not None:
                self._file.sync_failed()
                raise _renewed(fault.error, self._path)
            self._file.sync()

    def close(self) -> None:
        self._closed = True

    def _write(self, offset: int, chunk: bytes) -> None:
        grown = offset + len(chunk) - len(self._file.content)
        missing = grown - self._disk.room() if grown > 0 else 0
        if missing > 0:  # as much as there is room for, like a short write that is gone on with
            chunk = chunk[: max(len(chunk) - missing, 0)]
        if chunk:
            self._file.write(offset, chunk)
        if missing > 0:
            raise _error(errno.ENOSPC, self._path)

    def _check_open(self, *, writing: bool = False) -> None:
        if self._closed or (writing and self._read_only):
            raise _error(errno.EBADF, self._path)


class SimulatedDisk:
    """The `Disk` protocol in memory. `/` and `.` are its root, which is there from the start.

    `capacity_bytes` (None: no limit) is how much all files together may hold; it can be changed at any time.
    `operations` counts what was done, by the names that `fail_next` takes: open, read, write, sync, truncate, list_dir,
    make_dir, rename, remove, sync_dir.
    """

    def __init__(self, *, capacity_bytes: int | None = None) -> None:
        self.lock: Final = RLock()
        self.capacity_bytes = capacity_bytes
        self.operations: Counter[str] = Counter()
        self._root = DirectoryOnMedium()
        self._faults: list[_Fault] = []

    # The protocol

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> SimulatedFile:
        with self.lock:
            self.raise_fault("open", path)
            parent, name = self._parent(path)
            node = parent.entries.get(name) if name else parent
            if isinstance(node, DirectoryOnMedium):
                raise _error(errno.EISDIR, path)
            if node is None:
                if not create:
                    raise _error(errno.ENOENT, path)
                node = FileOnMedium()
                parent.change(None, name, node)
            elif create:
                node.resize(0)
            return SimulatedFile(self, node, path, read_only=read_only)

    def list_dir(self, path: str) -> list[str]:
        with self.lock:
            self.raise_fault("list_dir", path)
            return list(self._directory(path).entries)

    def make_dir(self, path: str) -> None:
        with self.lock:
            self.raise_fault("make_dir", path)
            parent, name = self._parent(path)
            if not name or name in parent.entries:
                raise _error(errno.EEXIST, path)
            parent.change(None, name, DirectoryOnMedium())

    def rename(self, old: str, new: str) -> None:
        with self.lock:
            self.raise_fault("rename", old)
            old_parent, old_name = self._parent(old)
            new_parent, new_name = self._parent(new)
            node = old_parent.entries.get(old_name)
            if node is None:
                raise _error(errno.ENOENT, old)
            target = new_parent.entries.get(new_name)
            if target is node:
                return
            if isinstance(node, FileOnMedium) and isinstance(target, DirectoryOnMedium):
                raise _error(errno.EISDIR, new)
            if isinstance(node, DirectoryOnMedium) and isinstance(target, FileOnMedium):
                raise _error(errno.ENOTDIR, new)
            if isinstance(target, DirectoryOnMedium) and target.entries:
                raise _error(errno.ENOTEMPTY, new)
            if old_parent is new_parent:
                old_parent.change(old_name, new_name, node)
            else:
                new_parent.change(None, new_name, node)
                old_parent.change(old_name, None, None)

    def remove(self, path: str) -> None:
        with self.lock:
            self.raise_fault("remove", path)
            parent, name = self._parent(path)
            node = parent.entries.get(name)
            if node is None:
                raise _error(errno.ENOENT, path)
            if isinstance(node, DirectoryOnMedium):
                raise _error(errno.EISDIR, path)
            parent.change(name, None, None)

    def exists(self, path: str) -> bool:
        with self.lock:
            try:
                parent, name = self._parent(path)
            except (FileNotFoundError, NotADirectoryError):
                return False
            return not name or name in parent.entries

    def sync_dir(self, path: str) -> None:
        with self.lock:
            self.raise_fault("sync_dir", path)
            self._directory(path).sync()

    def free_bytes(self, path: str) -> int:
        with self.lock:
            self._directory(path)
            return max(self.room(), 0)

    # Faults

    def crash(self, rng: Random) -> "SimulatedDisk":
        """A disk as it may be found when the power fails now; this one is left as it is.

        Everything on the new disk is durable, and it has no faults. The same `rng` state gives the same disk.
        """
        with self.lock:
            disk = SimulatedDisk(capacity_bytes=self.capacity_bytes)
            disk._root = self._root.after_crash(rng, rng.choice(TEARS_BYTES), {})
            return disk

    def content(self, path: str) -> bytes:
        """A file as it is seen, for whoever looks on: not an operation."""
        return bytes(self._file(path).content)

    def fail_next(
        self, operation: str, error: OSError, *, after: int = 0, path: str | None = None, partial_bytes: int = 0
    ) -> None:
        """Let an operation (see `operations`) fail once, after `after` more of its kind have passed.

        With `path`, only operations on that path count. A write that fails has written `partial_bytes` first.
        """
        with self.lock:
            self._faults.append(_Fault(operation, error, after, path, partial_bytes))

    def clear_faults(self) -> None:
        """Forget every fault that has not happened yet."""
        with self.lock:
            self._faults.clear()

    def flip_bit(self, path: str, offset: int, bit: int = 0) -> None:
        """Flip one bit of a file, on the medium and in what is read."""
        with self.lock:
            self._file(path).flip_bit(offset, bit)

    def take_fault(self, operation: str, path: str) -> _Fault | None:
        """Count an operation and take the fault that is due for it. Called with the lock held."""
        self.operations[operation] += 1
        due = None
        for fault in [fault for fault in self._faults if fault.operation == operation and fault.path in {None, path}]:
            if fault.after > 0:
                fault.after -= 1
            elif due is None:
                due = fault
                self._faults.remove(fault)
        return due

    def raise_fault(self, operation: str, path: str) -> None:
        """As `take_fault`, and raise its error. Called with the lock held."""
        fault = self.take_fault(operation, path)
        if fault is not None:
            raise _renewed(fault.error, path)

    def room(self) -> int:
        """Bytes that files can still grow by. Called with the lock held."""
        if self.capacity_bytes is None:
            return _UNLIMITED_BYTES
        return self.capacity_bytes - used_bytes(self._root)

    # Inside

    def _parent(self, path: str) -> tuple[DirectoryOnMedium, str]:
        names = [name for name in path.split("/") if name not in {"", "."}]
        directory = self._root
        for name in names[:-1]:
            node = directory.entries.get(name)
            if node is None:
                raise _error(errno.ENOENT, path)
            if isinstance(node, FileOnMedium):
                raise _error(errno.ENOTDIR, path)
            directory = node
        return directory, names[-1] if names else ""

    def _directory(self, path: str) -> DirectoryOnMedium:
        parent, name = self._parent(path)
        node = parent.entries.get(name) if name else parent
        if node is None:
            raise _error(errno.ENOENT, path)
        if isinstance(node, FileOnMedium):
            raise _error(errno.ENOTDIR, path)
        return node

    def _file(self, path: str) -> FileOnMedium:
        parent, name = self._parent(path)
        node = parent.entries.get(name)
        if not isinstance(node, FileOnMedium):
            raise _error(errno.ENOENT, path)
        return node


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)


def _renewed(error: OSError, path: str) -> OSError:
    # A new one each time: a raised exception carries its traceback, and one fault must not grow another's.
    number = error.errno if error.errno is not None else errno.EIO
    return OSError(number, error.strerror or os.strerror(number), path)
