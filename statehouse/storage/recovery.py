"""Opening a store: check the log, find a view that can be trusted, bring it up to the log, serve.

`candidates.py` says which views are tried. The log, which is the truth, is never set aside: what is wrong with it
beyond a torn tail is refused. So is a log that ends before its view, but without fsync: there power loss may take
commits that the view has, and the view is set aside.
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from attrs import frozen
from google.protobuf.message import DecodeError

from statehouse.errors import DiskFullError, NewerFormatError, StorageError
from statehouse.limits import SEGMENT_BYTES, VIEW_REOPEN_BYTES
from statehouse.storage.candidates import RecoveryReporter, Source, StorePlace, first_that_serves
from statehouse.storage.commit import FORMAT_VERSION, watermark
from statehouse.storage.disk import is_full
from statehouse.storage.event_log import EventLog, LogHead, LogRecordAt, ViewDisagreesError, stored_id
from statehouse.storage.folding import LogFolder
from statehouse.storage.keys import WATERMARK_KEY
from statehouse.storage.snapshot_keeper import SnapshotKeeper
from statehouse.storage.snapshots import list_snapshots, set_aside_ahead, snapshot_commit_ts, witnessed_ts
from statehouse.storage.store import Store
from statehouse.storage.taken_back import taken_back_to
from statehouse.storage.v1.log_pb2 import Watermark
from statehouse.storage.verification import StoreMoment
from statehouse.storage.view import View, ViewDamagedError, ViewError, ViewWriteError

__all__ = ["OpenedStore", "Recovery", "RecoveryReporter", "StorePlace", "StoreSettings", "open_store"]


@frozen(kw_only=True)
class StoreSettings:
    """How a store is opened and kept."""

    fsync: bool = True
    segment_bytes: int = SEGMENT_BYTES
    max_bytes: int = 0
    """Of the whole log; 0: as much as the disk holds."""
    verify_all: bool = False
    """Check every record at open, not only those from the segment of the view's watermark on."""
    snapshot_interval: int = 0
    """In commits; 0 writes none."""
    snapshots_keep: int = 2


@frozen(kw_only=True)
class Recovery:
    """What opening the store did."""

    source: Source
    """What the view was brought up from."""
    head_ts: int
    applied: int
    """Records of the log that the view did not have."""


PROGRESS_RECORDS = 4_096


@frozen
class OpenedStore:
    """A store that serves, its snapshots, and how it was opened."""

    store: Store
    snapshots: SnapshotKeeper
    recovery: Recovery
    place: StorePlace

    def moment(self) -> StoreMoment:
        """What a verification needs, as of now; whoever asked closes its view. Raises what `Store.moment` raises."""
        view, head = self.store.moment()
        return StoreMoment(
            disk=self.place.disk,
            log_directory=self.place.log_directory,
            snapshot_directory=self.place.snapshot_directory,
            view=view,
            served_head=head,
        )


def open_store(
    place: StorePlace,
    *,
    settings: StoreSettings,
    new_store_id: Callable[[], bytes],
    reporter: RecoveryReporter,
) -> OpenedStore:
    """Open the log and a view of it. Blocks until the view has applied the whole log.

    Raises StoreDamagedError when the log is damaged, and DiskFullError or StorageError when the disk refuses.
    """
    try:
        return first_that_serves(
            place,
            reporter,
            lambda source, view: _open_on(view, source, place, settings, new_store_id, reporter),
        )
    except ViewError as error:
        raise _not_applied(error) from error
    except OSError as error:
        kind = DiskFullError if is_full(error) else StorageError
        raise kind(f"the store cannot be opened: {error}") from error


def _open_on(
    view: View,
    source: Source,
    place: StorePlace,
    settings: StoreSettings,
    new_store_id: Callable[[], bytes],
    reporter: RecoveryReporter,
) -> OpenedStore:
    """Open the log and bring one candidate up to it."""
    found = _watermark(view)
    view_head = None if found is None else LogHead(found.commit_ts, found.chain)
    back_to = None if view_head is None else taken_back_to(place.disk, place.log_directory, view_head)
    folder = LogFolder(view)
    follower = _Follower(
        folder,
        reporter,
        in_view=view_head if back_to is not None else None,
        view_format=FORMAT_VERSION if found is None else found.format_version,
    )
    with ExitStack() as on_failure:
        log = EventLog.open(
            place.disk,
            place.log_directory,
            segment_bytes=settings.segment_bytes,
            max_bytes=settings.max_bytes,
            # A view with a group that may have been taken back still has all that was answered before.
            known_good=view_head if back_to is None else back_to,
            verify_all=settings.verify_all,
            fsync=settings.fsync,
            report=reporter.tail_cut,
            new_store_id=new_store_id,
            on_record=follower,
            synced_ts=_synced_ts(place) if settings.fsync else 0,
        )
        on_failure.callback(log.close)
        follower.finish()  # only now: a view is not given up for a log that is refused
        folder.flush()
        newest = _watermark(view)
        if newest is None:  # the log is empty: the view says so, or the next start would not trust it
            view.apply([(WATERMARK_KEY, watermark(0, log.head.chain, 0))])
            # failpoint: recover.watermark_written
        _set_aside_ahead(place, log.head.commit_ts)
        store = Store(
            log,
            view,
            committed_at_ns=0 if newest is None else newest.committed_at_ns,
            reopen_view=partial(_reopen, place, reporter, log),
            condemn_view=place.view.condemn,
        )
        snapshots = SnapshotKeeper(
            place.disk,
            place.snapshot_directory,
            store,
            interval_commits=settings.snapshot_interval,
            keep=settings.snapshots_keep,
        )
        # failpoint: recover.opened
        on_failure.pop_all()
    recovery = Recovery(source=source, head_ts=log.head.commit_ts, applied=folder.records)
    return OpenedStore(store, snapshots, recovery, place)


def _synced_ts(place: StorePlace) -> int:
    return witnessed_ts(place.disk, place.snapshot_directory, stored_id(place.disk, place.log_directory))


def _set_aside_ahead(place: StorePlace, head_ts: int) -> None:
    """Rename snapshots of commits that this log does not have.

    Without fsync they were lost, and with fsync on again such a snapshot would have the log refused. With fsync they
    are another store's, or by another name than their own: the next snapshot would not be due before theirs.
    """
    for path in list_snapshots(place.disk, place.snapshot_directory):
        if snapshot_commit_ts(path) > head_ts:
            set_aside_ahead(place.disk, path)


def _reopen(place: StorePlace, reporter: RecoveryReporter, log: EventLog, failed: View) -> View:
    """Open a view anew after a batch failed, and bring it up to the log: nothing else may be written meanwhile.

    Without the room that opening may take, or when its folder takes no writes, the failed view stays as it is: it can
    still be read.
    """
    if place.disk.free_bytes(place.log_directory) < VIEW_REOPEN_BYTES:
        raise ViewWriteError("there is no room to open the view anew", full=True)
    place.view.check_writable()
    failed.close()
    # failpoint: mend.closed
    return first_that_serves(place, reporter, lambda _, view: _caught_up(view, log))


def _caught_up(view: View, log: EventLog) -> View:
    """The view, once what the log has and it has not is folded into it.

    The batch that failed may be in the view after all: then it is ahead of the log, which no longer has it.
    """
    known_good = _watermark(view)
    known_ts = 0 if known_good is None else known_good.commit_ts
    if known_ts > log.head.commit_ts:
        raise ViewDisagreesError(f"the view has commit_ts {known_ts}, the log ends at {log.head.commit_ts}")
    folder = LogFolder(view)
    for record in log.records(after=max(known_ts - 1, 0)):
        if known_good is not None and record.commit_ts == known_ts:
            if record.chain != known_good.chain:
                raise ViewDisagreesError(f"the view has another commit {known_ts} than the log")
        else:
            folder.add(record)
    folder.flush()
    return view


class _Follower:
    """Folds what the log gives it, and says how far it is.

    `in_view`: the end of a group that the view has and the log may not; it is looked for before anything is folded.
    Nothing is folded into a view of an older format: it only bears witness to how far the log goes.
    """

    def __init__(
        self, folder: LogFolder, reporter: RecoveryReporter, *, in_view: LogHead | None, view_format: int
    ) -> None:
        self._folder = folder
        self._reporter = reporter
        self._awaited = in_view
        self._view_format = view_format

    def __call__(self, record: LogRecordAt) -> None:
        if self._awaited is not None:
            if (record.commit_ts, record.chain) == (self._awaited.commit_ts, self._awaited.chain):
                self._awaited = None  # the log has the group after all
            return
        if self._view_format != FORMAT_VERSION:
            return
        self._folder.add(record)
        if self._folder.records % PROGRESS_RECORDS == 0:
            self._reporter.progress(self._folder.records, record.commit_ts)

    def finish(self) -> None:
        """The log is at its end: ViewDisagreesError when it does not have what the view has.

        ViewDamagedError when the view is of an older format.
        """
        if self._awaited is not None:
            raise ViewDisagreesError(
                f"the view has commit_ts {self._awaited.commit_ts}, which was taken back and never answered"
            )
        if self._view_format != FORMAT_VERSION:
            raise ViewDamagedError(
                f"the view is of format {self._view_format}, and this version uses {FORMAT_VERSION}: it is made anew "
                "from the log"
            )


def _watermark(view: View) -> Watermark | None:
    packed = view.get(WATERMARK_KEY)
    if packed is None:
        return None
    try:
        found = Watermark.FromString(packed)
    except DecodeError as error:
        raise ViewDamagedError(f"not a watermark: {packed.hex()}") from error
    if found.format_version > FORMAT_VERSION:
        raise NewerFormatError(
            f"the view was written by a newer Statehouse: format {found.format_version}, this one reads "
            f"{FORMAT_VERSION}; start that one, or move the folder `state` aside to have it rebuilt"
        )
    return found


def _not_applied(error: ViewError) -> StorageError:
    if isinstance(error, ViewWriteError) and error.full:
        return DiskFullError("the disk is full: the view could not be brought up to the log")
    return StorageError(f"the view could not be brought up to the log: {error}")
