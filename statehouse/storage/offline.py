"""Verifying a store that no daemon serves, without changing anything in its directory.

The log and the snapshots are only read. LevelDB cannot be opened without writing, so the view is opened from a copy in
a temporary directory: the tables that its MANIFEST has, which LevelDB never changes, are linked there and not copied,
and whatever LevelDB writes or removes while the copy is open is in the copy. Other tables are left out: one that was
not finished when a daemon was killed has a number that LevelDB takes again, and it would be written through its link.
The copy takes room for the view's logs and manifest, some MiB.

The directory's lock is held meanwhile, shared with others who only read.
"""

import shutil
import tempfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from statehouse.errors import DataDirectoryError, DiskFullError, StorageError
from statehouse.findings import FindingKind, Head, VerifyEvent, VerifyFinding
from statehouse.limits import CHECK_ROOM_BYTES, MIB
from statehouse.storage.disk import RealDisk
from statehouse.storage.keys import WATERMARK_KEY
from statehouse.storage.leveldb_log import live_tables
from statehouse.storage.leveldb_view import LevelDBView
from statehouse.storage.lock import LOCK_NAME, LOG_NAME, hold_for_reading
from statehouse.storage.log_format import segment_first_ts
from statehouse.storage.verification import StoreMoment, Verification
from statehouse.storage.view import View, ViewDamagedError, ViewError
from statehouse.storage.view_home import CONDEMNED

__all__ = ["check_store"]

STATE_NAME: Final = "state"
SNAPSHOTS_NAME: Final = "snapshots"
_SET_ASIDE: Final = "state.set-aside"
_TABLES: Final = (".ldb", ".sst")
_NOT_COPIED: Final = frozenset({"LOCK", "LOG", "LOG.old"})
"""LevelDB's own lock, and what it says about itself."""


def check_store(
    data_directory: Path, heads: Iterable[Head] = (), *, fsync: bool
) -> Generator[VerifyEvent | None, None, None]:
    """Verify the store below `data_directory`, and say what a start would do; as `Verification.events`.

    `fsync` is what the daemon's settings say. Raises DataDirectoryError when there is no store, DataDirectoryHeldError
    when a daemon holds it, DiskFullError when the copy has no room, StorageError, and ValueError for bad heads.
    """
    with hold_for_reading(data_directory) as directory, ExitStack() as stack:
        try:
            _refuse_no_store(directory)
            found = list(_other_names(directory))
        except OSError as error:
            raise DataDirectoryError(f"the data directory {directory} is not readable: {error.strerror}") from None
        view: View | None = None
        try:
            view = stack.enter_context(_copied_view(directory / STATE_NAME))
        except ViewDamagedError as error:
            found.append(_about_the_view(directory, error))
        except (ViewError, OSError) as error:
            raise StorageError(f"the view cannot be checked: {error}") from error
        moment = StoreMoment(
            disk=RealDisk(),
            log_directory=str(directory / LOG_NAME),
            snapshot_directory=str(directory / SNAPSHOTS_NAME),
            view=view,
            fsync=fsync,
        )
        try:
            yield from Verification(moment, heads, found=found).events()
        except (ViewError, OSError) as error:
            raise StorageError(f"the store cannot be verified: {error}") from error


def _refuse_no_store(directory: Path) -> None:
    """Whether this is a store's directory: it has a segment, or a view or snapshots, which once had a log."""
    log = directory / LOG_NAME
    if log.is_dir() and any(segment_first_ts(entry.name) is not None for entry in log.iterdir()):
        return
    if any((directory / name).is_dir() for name in (STATE_NAME, SNAPSHOTS_NAME)):
        return
    raise DataDirectoryError(f"the data directory {directory} holds no store of Statehouse's")


def _other_names(directory: Path) -> Iterator[VerifyFinding]:
    ours = {LOCK_NAME, LOG_NAME, STATE_NAME, SNAPSHOTS_NAME}
    for name in sorted(entry.name for entry in directory.iterdir() if entry.name not in ours):
        kind, message = FindingKind.FOREIGN_FILE, "not Statehouse's; it is let be"
        if name == _SET_ASIDE:
            kind, message = FindingKind.LEFTOVER, "a view that an earlier start set aside; it may be deleted"
        yield VerifyFinding(kind=kind, message=message, is_note=True, file=name)


def _about_the_view(directory: Path, error: ViewDamagedError) -> VerifyFinding:
    rebuilds = "a start makes it anew from the newest good snapshot and the log"
    if not (directory / STATE_NAME).exists():
        message = f"there is no view; {rebuilds}"
        return VerifyFinding(kind=FindingKind.VIEW_MISSING, message=message, is_note=True, file=STATE_NAME)
    message = f"the view cannot be used ({error}); {rebuilds}"
    return VerifyFinding(kind=FindingKind.VIEW_UNUSABLE, message=message, is_note=True, file=STATE_NAME)


@contextmanager
def _copied_view(path: Path) -> Iterator[View]:
    """The view in `path`, opened from a copy. ViewDamagedError for one that a start would not use."""
    if not path.is_dir():
        raise ViewDamagedError("there is none")
    if (path / CONDEMNED).exists():
        raise ViewDamagedError("damage was found while it was read")
    with tempfile.TemporaryDirectory(prefix="statehouse-check-") as scratch:
        copy = Path(scratch) / STATE_NAME
        copy.mkdir()
        entries = [entry for entry in path.iterdir() if entry.name not in _NOT_COPIED]
        copied = [entry for entry in entries if entry.suffix not in _TABLES]
        needed = sum(entry.stat().st_size for entry in copied) + CHECK_ROOM_BYTES
        free = shutil.disk_usage(scratch).free
        if free < needed:
            raise DiskFullError(
                f"the check needs {needed // MIB} MiB in {tempfile.gettempdir()} for a copy of the view's logs, and "
                f"{free // MIB} MiB are free: make room, or name another directory with the variable TMPDIR"
            )
        live = live_tables(path)
        for entry in entries:
            if entry.suffix in _TABLES and entry.stem.isdecimal() and int(entry.stem) in live:
                (copy / entry.name).symlink_to(entry)
        for entry in copied:
            shutil.copyfile(entry, copy / entry.name)
        try:
            view = LevelDBView.open(str(copy), create=False)
        except ViewDamagedError as error:
            raise ViewDamagedError(str(error).replace(str(copy), STATE_NAME)) from error
        try:
            if view.get(WATERMARK_KEY) is None:
                raise ViewDamagedError("it has no watermark")
            yield view
        finally:
            view.close()
