"""Snapshots of a store: when one is due, writing it, and pruning the old ones.

A snapshot makes nothing safer, because the log is the truth: it shortens a rebuild of the view. Writing one reads
the whole view, so it is due when enough commits came since the last one *and* the log has grown since then by at
least that snapshot's size: snapshots never write more than the log does, however large the state becomes.
"""

from contextlib import closing

import structlog

from statehouse.storage.disk import Disk
from statehouse.storage.keys import WATERMARK_KEY
from statehouse.storage.snapshot_format import FORMAT_VERSION
from statehouse.storage.snapshots import list_snapshots, prune_snapshots, snapshot_commit_ts, write_snapshot
from statehouse.storage.store import Store
from statehouse.storage.v1.log_pb2 import SnapshotHeader, Watermark
from statehouse.storage.view import ViewError

__all__ = ["SnapshotKeeper"]

log = structlog.stdlib.get_logger(__name__)


class SnapshotKeeper:
    """The snapshots of one store. `due` belongs to the event loop; `write` blocks, one call at a time.

    `interval_commits` 0: never due.
    """

    def __init__(self, disk: Disk, directory: str, store: Store, *, interval_commits: int, keep: int) -> None:
        self._disk = disk
        self._directory = directory
        self._store = store
        self._interval_commits = interval_commits
        self._keep = keep
        newest = next(iter(list_snapshots(disk, directory)), None)
        self._last_ts = 0 if newest is None else snapshot_commit_ts(newest)
        # How much the log has grown since a snapshot of an earlier run is not known: count from now.
        self._last_bytes = 0 if newest is None else _size_bytes(disk, newest)
        self._log_bytes_then = 0 if newest is None else store.log_bytes

    def due(self) -> bool:
        """Whether it is time for the next one."""
        return (
            0 < self._interval_commits <= self._store.head_ts - self._last_ts
            and self._store.log_bytes - self._log_bytes_then >= self._last_bytes
        )

    def write(self) -> None:
        """Write a snapshot of the newest state, and prune. OSError, StorageError: the older ones are as they were."""
        log_bytes = self._store.log_bytes
        with closing(self._store.view_snapshot()) as view:
            try:
                watermark = Watermark.FromString(view.get(WATERMARK_KEY) or b"")
                header = SnapshotHeader(
                    format_version=FORMAT_VERSION, store_id=self._store.store_id, watermark=watermark
                )
                written = write_snapshot(self._disk, self._directory, view, header, _no_progress)
            except ViewError as error:
                raise self._store.snapshot_unreadable(error) from error
        self._last_ts, self._last_bytes, self._log_bytes_then = written.commit_ts, written.size_bytes, log_bytes
        log.info(
            "snapshot written",
            commit_ts=written.commit_ts,
            rows=written.rows,
            size_bytes=written.size_bytes,
            path=written.path,
        )
        for damaged in prune_snapshots(self._disk, self._directory, self._keep).damaged:
            log.warning("damaged snapshot removed", reason=str(damaged))


def _no_progress(rows: int, size_bytes: int) -> None:
    """A snapshot is written beside the commits, and nobody waits for it."""


def _size_bytes(disk: Disk, path: str) -> int:
    """0 for a snapshot that cannot be read: the next one is then due for the commits alone."""
    try:
        with closing(disk.open(path, read_only=True)) as file:
            return file.size()
    except OSError:
        return 0
