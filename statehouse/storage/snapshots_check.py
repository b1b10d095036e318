"""Verifying the snapshots of a store: each file whole, and each of this log's history.

A snapshot is never needed, so one that is damaged loses nothing: it is named, and may be deleted. Its rows are checked
for damage only; which history they are of shows in the chain value of its header: it must be the log's at that commit.
"""

import posixpath
from collections.abc import Iterator
from contextlib import closing

from google.protobuf.message import DecodeError

from statehouse.findings import FindingKind, VerifyFinding
from statehouse.storage.disk import Disk
from statehouse.storage.keys import WATERMARK_KEY
from statehouse.storage.log_walk import LogWalk
from statehouse.storage.snapshot_format import FORMAT_VERSION, SnapshotDamagedError, SnapshotReader
from statehouse.storage.snapshots import list_snapshots, snapshot_commit_ts
from statehouse.storage.v1.log_pb2 import SnapshotHeader, Watermark

__all__ = ["SnapshotsCheck"]

_REMEDY = "delete the file: a snapshot is never needed"


class SnapshotsCheck:
    """The snapshots that are there now. Of a store that is served, one may be removed before it is looked at."""

    def __init__(self, disk: Disk, directory: str, *, at_rest: bool) -> None:
        """Lists them; OSError."""
        self._disk = disk
        self._directory = directory
        self._at_rest = at_rest
        self._paths = list_snapshots(disk, directory)
        self._headers: dict[str, SnapshotHeader] = {}
        self.commits = {snapshot_commit_ts(path) for path in self._paths}
        self.checked = 0
        self.done_bytes = 0
        self.total_bytes = 0

    def steps(self) -> Iterator[VerifyFinding | None]:
        """Read every file. Gives what is wrong, and None after each block."""
        yield from self._other_names()
        sizes = [self._size_bytes(path) for path in self._paths]
        self.total_bytes = sum(sizes)
        done_bytes = 0
        for path, size in zip(self._paths, sizes, strict=True):
            try:
                with closing(self._disk.open(path, read_only=True)) as file:
                    yield from self._read(SnapshotReader(file, path), path)
                self.checked += 1
            except FileNotFoundError:
                if self._at_rest:
                    yield self._finding(FindingKind.UNREADABLE, path, "it is not there any more")
            except SnapshotDamagedError as error:
                self.checked += 1
                yield self._finding(FindingKind.SNAPSHOT_DAMAGED, path, error.what, error.offset)
            except OSError as error:
                yield self._finding(FindingKind.UNREADABLE, path, f"it cannot be read: {error.strerror or error}")
            done_bytes += size
            self.done_bytes = done_bytes

    def judge(self, walk: LogWalk) -> Iterator[VerifyFinding]:
        """Hold the headers against a log that was walked, with their commits among the wanted."""
        store_id = walk.store_id
        for path, header in self._headers.items():
            commit_ts = header.watermark.commit_ts
            chain = walk.chains.get(commit_ts)
            if store_id is not None and header.store_id != store_id:
                yield self._finding(FindingKind.SNAPSHOT_FOREIGN, path, "it is of another store than the log")
            elif chain is not None and chain != header.watermark.chain:
                message = f"it has another commit {commit_ts} than the log: it is of another history"
                yield self._finding(FindingKind.SNAPSHOT_FOREIGN, path, message)
            elif walk.ends_before(commit_ts):
                message = (
                    f"it has commits up to {commit_ts}, the log up to {walk.head.commit_ts}: with fsync a start "
                    "refuses the log, without it sets the snapshot aside"
                )
                yield self._finding(FindingKind.VIEW_AHEAD, path, message)

    def _read(self, reader: SnapshotReader, path: str) -> Iterator[VerifyFinding | None]:
        header = reader.header()
        watermark: bytes | None = None
        for rows in reader.rows():
            if watermark is None:
                watermark = dict(rows).get(WATERMARK_KEY)
            yield None
        try:
            same = watermark is not None and Watermark.FromString(watermark) == header.watermark
        except DecodeError:
            same = False
        if not same:
            raise SnapshotDamagedError(path, 0, "the watermark of its rows is not that of its header")
        if header.watermark.commit_ts != snapshot_commit_ts(path):
            what = f"it holds commit_ts {header.watermark.commit_ts}, which is not what its name says"
            raise SnapshotDamagedError(path, 0, what)
        self._headers[path] = header
        if header.format_version != FORMAT_VERSION:
            message = f"of format {header.format_version}: a start passes over it, and newer snapshots replace it"
            yield self._finding(FindingKind.LEFTOVER, path, message)

    def _other_names(self) -> Iterator[VerifyFinding]:
        known = {posixpath.basename(path) for path in self._paths}
        try:
            names = self._disk.list_dir(self._directory)
        except FileNotFoundError:
            return
        for name in sorted(set(names) - known):
            file = f"snapshots/{name}"
            if not name.endswith(".snap.tmp"):
                message = "no snapshot that a start would use; it is let be"
                yield VerifyFinding(kind=FindingKind.FOREIGN_FILE, message=message, is_note=True, file=file)
            elif self._at_rest:
                message = "an unfinished snapshot of a daemon that was killed; it is removed with the next snapshot"
                yield VerifyFinding(kind=FindingKind.LEFTOVER, message=message, is_note=True, file=file)

    def _size_bytes(self, path: str) -> int:
        try:
            with closing(self._disk.open(path, read_only=True)) as file:
                return file.size()
        except OSError:
            return 0  # found again when it is read

    @staticmethod
    def _finding(kind: FindingKind, path: str, message: str, offset: int | None = None) -> VerifyFinding:
        return VerifyFinding(
            kind=kind,
            message=message,
            remedy="" if kind.is_note else _REMEDY,
            is_note=kind.is_note,
            file=f"snapshots/{posixpath.basename(path)}",
            offset=offset,
            commit_ts=snapshot_commit_ts(path),
        )
