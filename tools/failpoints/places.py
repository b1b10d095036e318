"""Every failpoint: what may be done there, what that stands for, and how a run is led to it.

A place where nothing can fail, because no call of the system stands there, is only exited and stalled. The comments in
the source and this table are held against each other by a test, both ways.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final

from attrs import field, frozen

from failpoints.arming import Action

__all__ = ["DEATHS", "PLACES", "Lead", "Must", "Place"]


class Lead(Enum):
    """How a run comes to a place: what is under load, or what a recovery finds."""

    LOAD = "under load"
    GROUP_FAILS = "a group cannot be written for want of room, or LevelDB refuses its batch"
    VIEW_FAILS = "LevelDB refuses a batch"
    RECOVERY = "a recovery"
    TORN = "a recovery that finds a torn tail"
    ROTATED = "a recovery after the process ended in a rotation"
    BEHIND = "a recovery whose view is behind the log"
    VIEW_GONE = "a recovery that finds no view"
    VIEW_BAD = "a recovery that finds a damaged view"


class Must(Enum):
    """What a failure there must lead to, beside breaking no promise."""

    READ_ONLY = "the log takes no commit any more"
    REFUSE = "a commit fails, and is told so"


@frozen
class Place:
    """One failpoint."""

    actions: tuple[Action, ...]
    stands_for: str
    lead: Lead = Lead.LOAD
    must: Mapping[Action, Must] = field(factory=dict)


_POISONS: Final = {Action.EIO: Must.READ_ONLY, Action.ENOSPC: Must.READ_ONLY}
_POISONS_OR_REFUSES: Final = {Action.EIO: Must.READ_ONLY, Action.ENOSPC: Must.REFUSE}
_REFUSES: Final = {Action.VIEW_FULL: Must.REFUSE, Action.VIEW_BROKEN: Must.REFUSE}
_HERE: Final = (Action.EXIT, Action.STALL)
_DISK: Final = (*_HERE, Action.EIO, Action.ENOSPC)
_VIEW: Final = (*_HERE, Action.VIEW_FULL, Action.VIEW_BROKEN)

PLACES: Final[Mapping[str, Place]] = {
    # A commit, in its order
    "transaction.taken": Place(_HERE, "the transaction is taken for its commit; no partition has seen it"),
    "prepare.versions_assigned": Place(_HERE, "a partition has counted the versions of a leg"),
    "prepare.held": Place(_HERE, "a partition is held for a transaction over several agents"),
    "prepare.submitting": Place(_HERE, "all legs are prepared; the sequencer has not got the commit"),
    "commit.begun": Place(_HERE, "the group has its commit_ts; nothing is written"),
    "log.writing": Place(_DISK, "the write of a group fails before its first byte", must=_POISONS_OR_REFUSES),
    "log.written": Place(_DISK, "the write of a group fails behind its last byte", must=_POISONS_OR_REFUSES),
    "commit.appended": Place(_HERE, "the group is in the log and not synced"),
    "log.syncing": Place(_DISK, "the sync of a group or of a full segment fails", must=_POISONS),
    "commit.synced": Place(_HERE, "the group is durable and not applied"),
    "view.writing": Place(_VIEW, "LevelDB refuses the batch of a group, or of a recovery", must=_REFUSES),
    "commit.applied": Place(_HERE, "the group is durable and visible; nobody is answered"),
    "sequencer.answering": Place(_HERE, "the group is done, and the event loop knows; nobody is answered"),
    # What has expired
    "sweep.begun": Place(_HERE, "a sweep has read the clock; what was committed before may still be on its way"),
    "sweep.all_visible": Place(_HERE, "a sweep has waited for that, and has looked for nothing yet"),
    "sweep.inherited": Place(_HERE, "what an agent is to delete is found, and what a fork of it is to has yet to be"),
    "sweep.new_fork": Place(_HERE, "a fork that was made since the last sweep is about to be looked at"),
    "sweep.tombstones_sent": Place(_HERE, "the tombstones of one agent are on their way, those of the next are not"),
    "sweep.tombstones_durable": Place(_HERE, "all tombstones of a sweep are durable; how far it is was not noted"),
    "sweep.noted": Place(_HERE, "how far a sweep is was noted, and the sweeper does not know of it"),
    # A group that fails
    "log.erasing": Place(_DISK, "a failed group cannot be overwritten", Lead.GROUP_FAILS, _POISONS),
    "log.erased": Place(_DISK, "the zeros over a failed group cannot be synced", Lead.GROUP_FAILS, _POISONS),
    "taken_back.written": Place(
        _DISK, "the note of a group that is taken back cannot be synced", Lead.VIEW_FAILS, _POISONS
    ),
    "commit.rolled_back": Place(_HERE, "the group is taken back from the log; nobody is answered", Lead.VIEW_FAILS),
    "sequencer.failing": Place(_HERE, "the partitions have forgotten; nobody is answered", Lead.GROUP_FAILS),
    "mend.begun": Place(_DISK, "the view is about to be opened anew", Lead.VIEW_FAILS),
    "mend.probing": Place(_DISK, "the disk of the failed view still takes no writes", Lead.VIEW_FAILS),
    "mend.closed": Place(_DISK, "the failed view is closed, and no other is open", Lead.VIEW_FAILS),
    # The next segment
    "segment.zeros_written": Place(_DISK, "the zeros of the next segment do not fit"),
    "segment.preparing": Place(_DISK, "the zeros of the next segment cannot be synced"),
    "segment.prepared": Place(_HERE, "the next segment lies ready"),
    "rotation.begun": Place(_HERE, "the full segment is synced; the next has no name"),
    "segment.header_written": Place(_DISK, "the header of the next segment cannot be written"),
    "segment.header_synced": Place(_DISK, "the next segment cannot be given its name"),
    "segment.renamed": Place(_HERE, "the next segment has its name; its directory is not synced"),
    "rotation.installed": Place(_HERE, "the next segment is in place; the full one has its zeros still"),
    "rotation.trimming": Place(_DISK, "the zeros of the full segment cannot be cut"),
    "rotation.trimmed": Place(_DISK, "the cut of the full segment cannot be synced"),
    # A snapshot
    "snapshot.begun": Place(_DISK, "a snapshot ends with its header"),
    "snapshot.block_written": Place(_DISK, "a snapshot ends amid its rows"),
    "snapshot.ended": Place(_DISK, "a snapshot is whole and has no name"),
    "snapshot.renamed": Place(_DISK, "a snapshot has its name, and its directory cannot be synced"),
    "snapshot.pruning": Place(_DISK, "an old snapshot cannot be removed"),
    # Opening the log
    "open.log_listed": Place(_DISK, "the segments are listed, and not one is read", Lead.RECOVERY),
    "open.first_segment_made": Place(_HERE, "a new store has its first segment, and no view"),
    "open.headers_read": Place(_DISK, "a header cannot be read", Lead.RECOVERY),
    "open.sealed_trimmed": Place(_DISK, "the cut of a segment that a rotation left cannot be synced", Lead.ROTATED),
    "open.tail_cut": Place(_DISK, "a torn tail is overwritten, and cannot be synced", Lead.TORN),
    "open.tail_written_again": Place(_DISK, "what may be in the page cache alone cannot be synced", Lead.RECOVERY),
    # Opening the view
    "recover.view_found": Place(_HERE, "the view that is there is open", Lead.RECOVERY),
    "recover.setting_aside": Place(_DISK, "a view that is of no use cannot be moved away", Lead.VIEW_BAD),
    "recover.snapshot_loaded": Place(_DISK, "a snapshot is loaded, and what is behind it not applied", Lead.VIEW_GONE),
    "recover.batch_folded": Place(_HERE, "the view has caught up by a batch", Lead.BEHIND),
    "recover.watermark_written": Place(_DISK, "the view of an empty log says so"),
    "recover.opened": Place(_HERE, "the store is recovered, and not yet served", Lead.RECOVERY),
    "engine.started": Place(_HERE, "the actors run, and the first call has not come", Lead.RECOVERY),
}

DEATHS: Final = ("commit.begun", "commit.appended", "commit.synced", "commit.applied", "rotation.installed")
"""Where the victim ends whose recovery is looked at, if it is of no account."""
