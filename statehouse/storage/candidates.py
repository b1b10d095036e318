"""The views that a store may be opened on, in order: the one that is there; the newest good snapshot; an empty one.

Each is a fold of the log up to its watermark, or it is not used: whoever brings one up to the log finds out by the
chain value at that watermark. A view that cannot be trusted is closed, set aside and named, and the next one is tried.
"""

from collections.abc import Callable, Iterator
from typing import Literal, TypeVar

from attrs import frozen

from statehouse.errors import StorageError
from statehouse.storage.disk import Disk
from statehouse.storage.event_log import TailCut, ViewAheadError, ViewDisagreesError, stored_id
from statehouse.storage.keys import WATERMARK_KEY
from statehouse.storage.snapshots import (
    SnapshotDamagedError,
    SnapshotOutdatedError,
    list_snapshots,
    load_snapshot,
    set_aside_ahead,
)
from statehouse.storage.view import View, ViewDamagedError, ViewError, ViewWriteError
from statehouse.storage.view_home import ViewHome

__all__ = ["RecoveryReporter", "Source", "StorePlace", "first_that_serves"]

T = TypeVar("T")

Source = Literal["view", "snapshot", "log"]
"""What a view is brought up from."""


@frozen
class StorePlace:
    """Where the parts of a store are."""

    disk: Disk
    log_directory: str
    snapshot_directory: str
    view: ViewHome


class RecoveryReporter:
    """Told what recovery finds and how far it is. This one is silent; override what matters."""

    def tail_cut(self, cut: TailCut) -> None:
        """The log ended in a torn record, which was cut."""

    def view_set_aside(self, reason: str, where: str | None) -> None:
        """The view, or a snapshot, cannot be used."""

    def progress(self, applied: int, commit_ts: int) -> None:
        """The view has caught up to `commit_ts`. Called every few thousand records."""


def first_that_serves(place: StorePlace, reporter: RecoveryReporter, bring_up: Callable[[Source, View], T]) -> T:
    """What `bring_up` makes of the first view that it does not find useless; that view stays open.

    A view that disagrees with the log, or is damaged, is closed and set aside. Whatever else `bring_up` raises closes
    the view and passes.
    """
    for source, view, snapshot in _candidates(place, reporter):
        try:
            return bring_up(source, view)
        except (ViewDisagreesError, ViewError) as error:
            view.close()
            if not _is_useless(error):
                raise
            if snapshot is not None and isinstance(error, ViewAheadError):
                # Before the next one has the log cut: half a cut beside this witness would be taken for damage.
                set_aside_ahead(place.disk, snapshot)
            reporter.view_set_aside(str(error), place.view.set_aside())
        except Exception:
            view.close()
            raise
    raise StorageError("an empty view could not be opened")


def _candidates(place: StorePlace, reporter: RecoveryReporter) -> Iterator[tuple[Source, View, str | None]]:
    """The views to try, each opened when it is asked for; the one before it was closed and set aside.

    With the file that the view was loaded from, if it was.
    """
    try:
        view = place.view.find()
        # failpoint: recover.view_found
    except ViewDamagedError as error:
        reporter.view_set_aside(str(error), place.view.set_aside())
        view = None
    if view is not None:
        try:
            missing = None if view.get(WATERMARK_KEY) is not None else "the view has no watermark"
        except ViewDamagedError as error:
            missing = str(error)
        if missing is None:
            yield "view", view, None
        else:
            view.close()
            reporter.view_set_aside(missing, place.view.set_aside())
    store_id = stored_id(place.disk, place.log_directory)
    for path in list_snapshots(place.disk, place.snapshot_directory):
        view = place.view.make()
        try:
            load_snapshot(place.disk, path, view.apply, store_id=store_id)
            # failpoint: recover.snapshot_loaded
        except (SnapshotDamagedError, SnapshotOutdatedError, OSError) as error:  # what the view refuses is a ViewError
            view.close()
            reporter.view_set_aside(str(error), None)
            place.view.set_aside()
        except Exception:
            view.close()
            raise
        else:
            yield "snapshot", view, path
    yield "log", place.view.make(), None


def _is_useless(error: ViewDisagreesError | ViewError) -> bool:
    """Whether the view is to be set aside, and not tried again."""
    return isinstance(error, ViewDisagreesError | ViewDamagedError) or (
        isinstance(error, ViewWriteError) and error.damaged
    )
