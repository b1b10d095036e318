"""The data directory: fit to be used, and held by one daemon at a time.

`hold_data_directory` looks before it touches anything, so that a mistyped path never leaves a file in
somebody else's directory, and then keeps an exclusive `flock` on `<data>/LOCK` until its block ends. The
kernel drops the lock with the process, however that dies, so there is no stale lock to clean up and the
file is never removed: a daemon that removed it could leave two others holding locks on two files of one
name. The lock is our own and stands outside LevelDB's folder, because LevelDB's (fcntl) vanishes when anyone in
the process opens and closes its file.

The pid in the file is for the message to whoever comes second; nothing is decided by it.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from statehouse.errors import DataDirectoryError, DataDirectoryHeldError
from statehouse.limits import FREE_DISK_BYTES, MIB

LOCK_NAME: Final = "LOCK"
LOG_NAME: Final = "log"

_OURS = re.compile(r"LOCK|log|snapshots|state(\..+)?")
_NOT_OURS_AND_HARMLESS: Final = frozenset({"lost+found"})
"""What a file system of its own has in its root when it is new."""
_SEGMENT = re.compile(r"[0-9]{20}\.log")
_LOG_FILE = re.compile(r"next\.tmp|taken-back|lost\+found")
"""What `log/` may hold before it has a segment; lost+found when a disk of its own is mounted there."""
_LONGEST_PID = 20


@contextmanager
def hold_data_directory(path: Path, *, free_bytes_needed: int = FREE_DISK_BYTES) -> Iterator[Path]:
    """Make `path` if it does not exist, check that it can serve, and hold its lock; gives the absolute path.

    Raises DataDirectoryHeldError, with the holder's pid, when another daemon holds it, and
    DataDirectoryError when it is a file, cannot be made, is not writable, holds files of somebody else, or
    its disk has less than `free_bytes_needed` free. Blocks on the file system only, never on the lock.
    """
    directory = path.absolute()
    _make(directory)
    _refuse_foreign(directory)
    try:
        descriptor = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise DataDirectoryError(f"the data directory {directory} is not writable: {error.strerror}") from None
    try:
        _lock(descriptor, directory)
        _refuse_full_disk(directory, free_bytes_needed)
        yield directory
    finally:
        os.close(descriptor)  # and with it the lock


@contextmanager
def hold_for_reading(path: Path) -> Iterator[Path]:
    """Hold the lock of a data directory that is there, and change nothing in it; gives the absolute path.

    The lock is shared: others may read, and no daemon can start. A directory without a LOCK is a copy, and is not held.
    Raises as `hold_data_directory`.
    """
    directory = path.absolute()
    if not directory.is_dir():
        what = "is a file" if directory.exists() else "does not exist"
        raise DataDirectoryError(f"the data directory {directory} {what}")
    try:
        descriptor = os.open(directory / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        yield directory
        return
    except OSError as error:
        raise DataDirectoryError(f"the data directory {directory} is not readable: {error.strerror}") from None
    try:
        _flock(descriptor, fcntl.LOCK_SH, directory)
        yield directory
    finally:
        os.close(descriptor)


def _make(directory: Path) -> None:
    """Make the directory and its parents, and sync each parent: a store is as durable as its path.

    The parent of one that is there is synced too: whoever made it may have died before its name was durable.
    """
    missing = []
    ancestor = directory
    try:
        while not ancestor.exists():
            missing.append(ancestor)
            ancestor = ancestor.parent
        for child in reversed(missing):
            child.mkdir(mode=0o700, exist_ok=True)
            _sync_directory(child.parent)
        if not missing:
            with suppress(PermissionError):  # whoever may not open it has not made the directory either
                _sync_directory(directory.parent)
    except OSError as error:
        raise DataDirectoryError(f"the data directory {directory} cannot be made: {error.strerror}") from None
    if not directory.is_dir():
        raise DataDirectoryError(f"the data directory {directory} is a file")


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_foreign(directory: Path) -> None:
    """Refuse a directory that somebody else uses.

    A directory with a log of ours is ours, whatever else an operator has put beside it, or beside a segment
    in `log/` (whether a name there could be taken for a segment, the log judges). One without may hold only
    names that a start which was cut short can leave; a LOCK alone says little, as every LevelDB has one.
    """
    try:
        entries = sorted(entry.name for entry in directory.iterdir())
        has_log = LOG_NAME in entries and (directory / LOG_NAME).is_dir()
        log_entries = sorted(entry.name for entry in (directory / LOG_NAME).iterdir()) if has_log else []
    except OSError as error:
        raise DataDirectoryError(f"the data directory {directory} is not readable: {error.strerror}") from None
    foreign = []
    if not any(_SEGMENT.fullmatch(name) for name in log_entries):
        foreign = [f"{LOG_NAME}/{name}" for name in log_entries if not _LOG_FILE.fullmatch(name)]
    if not has_log:
        foreign += [name for name in entries if not _OURS.fullmatch(name) and name not in _NOT_OURS_AND_HARMLESS]
    if foreign:
        raise DataDirectoryError(
            f"the data directory {directory} holds files that are not Statehouse's, such as {foreign[0]!r}: "
            "name an empty or a new directory"
        )


def _flock(descriptor: int, kind: int, directory: Path) -> None:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(descriptor, _LONGEST_PID, 0).decode("ascii", "replace").strip()
        holder = f"pid {pid}" if pid.isdecimal() else "its pid is not known yet"
        raise DataDirectoryHeldError(
            f"the data directory {directory} is held by another statehoused ({holder})"
        ) from None
    except OSError as error:
        raise DataDirectoryError(f"the data directory {directory} cannot be locked: {error.strerror}") from None


def _lock(descriptor: int, directory: Path) -> None:
    _flock(descriptor, fcntl.LOCK_EX, directory)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        raise DataDirectoryError(f"the data directory {directory} is not writable: {error.strerror}") from None


def _refuse_full_disk(directory: Path, needed: int) -> None:
    try:
        disk = os.statvfs(directory)
    except OSError as error:
        raise DataDirectoryError(f"the disk of the data directory {directory} fails: {error.strerror}") from None
    free = disk.f_bavail * disk.f_frsize
    if free < needed:
        raise DataDirectoryError(
            f"the disk of the data directory {directory} has {free // MIB} MiB free and the daemon needs "
            f"{needed // MIB} MiB to start"
        )
