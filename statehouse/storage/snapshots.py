"""Snapshots: a whole view at one commit in a file, to rebuild the view from without the whole log.

`<commit_ts:020d>.snap` becomes visible by a rename, after it was written and synced whole; until then it is
`.snap.tmp`, which nobody reads. The format stands in `snapshot_format.py`.

A view is loaded with its watermark last, after the file's trailer was compared. The watermark sorts among
the first rows, and in that order a process that died halfway would leave a view that says it is whole.

Both directions stream, a block at a time. Everything blocks on the disk and belongs in a worker thread.
"""

import posixpath
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Final

from attrs import frozen
from google.protobuf.message import DecodeError

from statehouse.storage.disk import Disk
from statehouse.storage.keys import WATERMARK_KEY
from statehouse.storage.snapshot_format import (
    FORMAT_VERSION,
    SnapshotDamagedError,
    SnapshotOutdatedError,
    SnapshotReader,
    SnapshotWriter,
    row_blocks,
)
from statehouse.storage.v1.log_pb2 import SnapshotHeader, Watermark
from statehouse.storage.view import ViewSnapshot, Write

__all__ = [
    "SnapshotDamagedError",
    "SnapshotFile",
    "SnapshotOutdatedError",
    "SnapshotsPruned",
    "list_snapshots",
    "load_snapshot",
    "prune_snapshots",
    "set_aside_ahead",
    "snapshot_commit_ts",
    "verify_snapshot",
    "witnessed_ts",
    "write_snapshot",
]

_SUFFIX: Final = ".snap"
_UNFINISHED: Final = ".snap.tmp"
_DIGITS: Final = 20


@frozen
class SnapshotFile:
    """A snapshot that was written."""

    path: str
    commit_ts: int
    rows: int
    size_bytes: int


@frozen
class SnapshotsPruned:
    """What pruning kept and removed. What was found damaged is among the removed; the errors say what it had."""

    kept: list[str]
    removed: list[str]
    damaged: list[SnapshotDamagedError]


def write_snapshot(
    disk: Disk,
    directory: str,
    view: ViewSnapshot,
    header: SnapshotHeader,
    progress: Callable[[int, int], None],
) -> SnapshotFile:
    """Write every row of `view` to a new file in `directory`, which is made when it is missing.

    `header.watermark` must be the watermark in the view; its commit_ts names the file. `progress` is told (rows,
    bytes) written so far after each block of about 64 KiB, and may raise to give up. One at a time for a
    directory, because the unfinished file has one name for a commit_ts.

    Raises ValueError when the watermarks differ, what reading the view raises, OSError when the disk refuses, and
    what `progress` raises; each time the unfinished file is removed and older snapshots are as they were.
    """
    if not _same_watermark(view.get(WATERMARK_KEY), header):
        raise ValueError("the snapshot's header does not have the view's watermark")
    if not disk.exists(directory):
        disk.make_dir(directory)
        disk.sync_dir(posixpath.dirname(directory) or ".")
    commit_ts = header.watermark.commit_ts
    stem = posixpath.join(directory, f"{commit_ts:0{_DIGITS}d}")
    path, unfinished = stem + _SUFFIX, stem + _UNFINISHED
    renamed = False
    try:
        with closing(disk.open(unfinished, create=True)) as file:
            writer = SnapshotWriter(file)
            writer.begin(header)
            # failpoint: snapshot.begun
            with closing(row_blocks(view)) as blocks:
                for block, count in blocks:
                    writer.rows(block, count)
                    # failpoint: snapshot.block_written
                    progress(writer.row_count, writer.size_bytes)
            writer.end()
            # failpoint: snapshot.ended
        disk.rename(unfinished, path)
        renamed = True
        # failpoint: snapshot.renamed
        disk.sync_dir(directory)
    finally:
        if not renamed:
            with suppress(OSError):
                disk.remove(unfinished)
    return SnapshotFile(path, commit_ts, writer.row_count, writer.size_bytes)


def load_snapshot(
    disk: Disk, path: str, apply: Callable[[list[Write]], None], *, store_id: bytes | None = None
) -> SnapshotHeader:
    """Give every row of a snapshot to `apply`, a block at a time and the watermark last, and return its header.

    Raises `SnapshotDamagedError` when anything is not as it was written, or, with `store_id`, when another store wrote
    it: the caller throws away what was applied before that. `SnapshotOutdatedError` when the rows are of an older
    format; nothing was applied then. What `apply` raises passes, and OSError when the file cannot be read.
    """
    return _load(disk, path, apply, store_id=store_id, may_be_outdated=False)


def _load(
    disk: Disk, path: str, apply: Callable[[list[Write]], None], *, store_id: bytes | None, may_be_outdated: bool
) -> SnapshotHeader:
    with closing(disk.open(path, read_only=True)) as file:
        reader = SnapshotReader(file, path)
        header = _header(reader, path)
        if store_id is not None and header.store_id != store_id:
            raise SnapshotDamagedError(path, 0, "it is of another store")
        if header.format_version != FORMAT_VERSION and not may_be_outdated:
            raise SnapshotOutdatedError(path, header.format_version)
        watermark: bytes | None = None
        for rows in reader.rows():
            writes: list[Write] = [row for row in rows if row[0] != WATERMARK_KEY]
            if len(writes) != len(rows):
                watermark = dict(rows)[WATERMARK_KEY]
            apply(writes)
    if not _same_watermark(watermark, header):
        raise SnapshotDamagedError(path, 0, "the watermark of its rows is not that of its header")
    apply([(WATERMARK_KEY, watermark)])
    return header


def verify_snapshot(disk: Disk, path: str) -> SnapshotHeader:
    """Check every byte of a snapshot, of any format that there was, without using any.

    Raises `SnapshotDamagedError`, and OSError.
    """
    return _load(disk, path, lambda _: None, store_id=None, may_be_outdated=True)


def set_aside_ahead(disk: Disk, path: str) -> None:
    """Rename a snapshot of commits that the log does not have: it is no witness of the log any more, and no loss."""
    disk.rename(path, f"{path}.ahead")


def list_snapshots(disk: Disk, directory: str) -> list[str]:
    """The paths of the snapshots in `directory`, the newest commit first; whether they are good is not looked at.

    Empty when there is no such directory. Files that are not named as a snapshot are left out.
    """
    names = [name for name in _names(disk, directory) if name.endswith(_SUFFIX) and _is_stem(name[: -len(_SUFFIX)])]
    return [posixpath.join(directory, name) for name in sorted(names, reverse=True)]


def snapshot_commit_ts(path: str) -> int:
    """The commit that a snapshot holds, from its name. ValueError when it is not named as a snapshot."""
    return int(posixpath.basename(path).removesuffix(_SUFFIX))


def witnessed_ts(disk: Disk, directory: str, store_id: bytes | None) -> int:
    """The newest commit that a snapshot shows to have been synced; 0 when none does.

    A snapshot is made of a view, and a view of records that were synced; and it gets its name when it is whole. So one
    that was damaged since, or cannot be read, is a witness by its name. One of another store than `store_id`, or by
    another name than its own, is none, and nor is a folder. None for `store_id`: not known, and each is believed.
    """
    newest = 0
    for path in list_snapshots(disk, directory):
        try:
            with closing(disk.open(path, read_only=True)) as file:
                header = SnapshotReader(file, path).header()
        except IsADirectoryError:
            continue
        except (SnapshotDamagedError, OSError):
            return max(newest, snapshot_commit_ts(path))
        if store_id is None or header.store_id == store_id:
            newest = max(newest, header.watermark.commit_ts)
            if header.watermark.commit_ts == snapshot_commit_ts(path):
                return newest
    return newest


def prune_snapshots(disk: Disk, directory: str, keep: int) -> SnapshotsPruned:
    """Remove all but the newest `keep` good snapshots, and what a crash left unfinished.

    A snapshot is good when every byte of it was read and checked just now: an old one is never given up for a
    newer one that is damaged. Not beside `write_snapshot`. Raises OSError, and ValueError when `keep` is below 1.
    """
    if keep < 1:
        raise ValueError(f"at least one snapshot is kept, not {keep}")
    kept: list[str] = []
    removed: list[str] = []
    damaged: list[SnapshotDamagedError] = []
    for path in list_snapshots(disk, directory):
        if len(kept) == keep:
            removed.append(path)
            continue
        try:
            verify_snapshot(disk, path)
        except IsADirectoryError:
            continue  # none of ours
        except SnapshotDamagedError as error:
            damaged.append(error)
            removed.append(path)
        else:
            kept.append(path)
    unfinished = [posixpath.join(directory, n) for n in _names(disk, directory) if n.endswith(_UNFINISHED)]
    for path in (*removed, *unfinished):
        # failpoint: snapshot.pruning
        disk.remove(path)
    if removed or unfinished:
        disk.sync_dir(directory)
    return SnapshotsPruned(kept, removed, damaged)


def _header(reader: SnapshotReader, path: str) -> SnapshotHeader:
    header = reader.header()
    commit_ts = header.watermark.commit_ts
    if posixpath.basename(path) != f"{commit_ts:0{_DIGITS}d}{_SUFFIX}":
        raise SnapshotDamagedError(path, 0, f"it holds commit_ts {commit_ts}, which is not what its name says")
    return header


def _same_watermark(row: bytes | None, header: SnapshotHeader) -> bool:
    """Whether a view's watermark row is the one in the header."""
    try:
        return row is not None and Watermark.FromString(row) == header.watermark
    except DecodeError:
        return False


def _names(disk: Disk, directory: str) -> list[str]:
    try:
        return disk.list_dir(directory)
    except FileNotFoundError:
        return []


def _is_stem(text: str) -> bool:
    return len(text) == _DIGITS and text.isascii() and text.isdigit()
