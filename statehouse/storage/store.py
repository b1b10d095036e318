"""The store: the event log and the view of it as one thing, and the only way in from above.

`commit` makes a group durable in the one order that is safe: append, sync, apply. When the view cannot take
what the log has, the append is rolled back and synced before anybody is answered, so that 'failed' means 'did
not happen'; that view is read from, and never written through again until it was opened anew and has caught up.

What reads is in `reading`, and in `preparing` what a partition prepares its commits by; here are the writing, and the
opening anew of a view that failed.
"""

from collections.abc import Callable

from statehouse.errors import DiskFullError, OverloadedError, StorageError
from statehouse.storage.commit import GroupCommit
from statehouse.storage.disk import is_full
from statehouse.storage.event_log import EventLog, LogHead
from statehouse.storage.folding import OutcomeWindow
from statehouse.storage.preparing import Earlier, LeaseRow, Preparing
from statehouse.storage.reading import ViewAwayError
from statehouse.storage.view import View, ViewDamagedError, ViewError, ViewSnapshot, ViewWriteError

__all__ = ["Earlier", "LeaseRow", "Store", "ViewAwayError"]


class Store(Preparing):
    """What recovery opened.

    `reopen_view(old)` closes a view that failed and gives one that has caught up; `condemn_view()` has the view that
    is there rebuilt when it is opened next.
    """

    def __init__(
        self,
        log: EventLog,
        view: View,
        *,
        committed_at_ns: int,
        reopen_view: Callable[[View], View],
        condemn_view: Callable[[], None],
    ) -> None:
        super().__init__(log, view, condemn_view)
        self._reopen_view = reopen_view
        self._view_failed = False
        self._outcomes = OutcomeWindow(view)
        self.head = log.head
        """The newest commit that is durable and applied, and the chain value there."""
        self.head_time_ns = committed_at_ns
        """When the newest commit was made, in nanoseconds since 1970."""

    # Writing: one thread at a time, the others wait

    def commit(self, group: GroupCommit) -> None:
        """Make a group durable and visible, or leave everything as it was. Blocks on the disk.

        Raises DiskFullError or StorageError when nothing of the group has happened, LogPoisonedError when
        that is unknown.
        """
        with self._writing:
            self._commit(group)

    @property
    def view_failed(self) -> bool:
        """Whether the view waits to be opened anew. With a poisoned log it stays as it is: what to apply is unknown."""
        return self._view_failed and not self._log.poisoned

    def mend_view(self) -> None:
        """Open the view anew after a batch failed, as the next commit would. Blocks; safe beside a commit.

        StorageError when it cannot be opened: try again later.

        For whoever watches `view_failed`: while a view is closed because it could not be opened again, nothing can be
        read and so nothing prepared, and no commit would come.
        """
        with self._writing:
            if self.view_failed:
                self._mend_view()

    def _commit(self, group: GroupCommit) -> None:
        if self._view_failed:
            self._mend_view()
        # failpoint: commit.begun
        payloads = group.payloads()
        placements = self._log.append(payloads)
        # failpoint: commit.appended
        self._log.sync()
        # failpoint: commit.synced
        self._applying = True
        try:
            self._view.apply(group.view_writes(placements, self._log.head.chain, self._counters).items())
        except ViewError as error:
            self._view_failed = True
            self._log.roll_back()
            # failpoint: commit.rolled_back
            raise self._failed_view(error) from error
        except Exception:
            self._log.roll_back()  # a bug: what was appended was never applied, and must not be answered
            raise
        else:
            # failpoint: commit.applied
            self.head, self.head_time_ns = self._log.head, group.committed_at_ns
        finally:
            self._applying = False
        try:
            self._outcomes.advance(group.last_commit_ts)
        except ViewError as error:
            self._view_failed = True  # the group itself is durable and applied
            self._failed_view(error)

    @property
    def next_segment_needed(self) -> bool:
        """Whether it is time to prepare the log's next segment."""
        return self._log.next_segment_needed

    def prepare_next_segment(self) -> None:
        """Preallocate the log's next segment, so that no commit waits for it. Blocks; safe beside a commit. OSError."""
        self._log.prepare_next_segment()

    def _mend_view(self) -> None:
        try:
            # failpoint: mend.begun
            self._view = self._reopen_view(self._view)
        except (ViewError, OSError) as error:
            raise self._failed_view(error) from error
        self._outcomes = OutcomeWindow(self._view)
        self._view_failed = False

    # Failures

    def _failed_view(self, error: ViewError | OSError) -> StorageError:
        if isinstance(error, ViewDamagedError) or (isinstance(error, ViewWriteError) and error.damaged):
            self._condemn_view()
        full = is_full(error) if isinstance(error, OSError) else isinstance(error, ViewWriteError) and error.full
        self._view_was_full = full
        if full:
            return DiskFullError("the disk is full; nothing of the commit was done")
        return StorageError("the view could not be written; nothing of the commit was done")

    # The rest

    def moment(self) -> tuple[ViewSnapshot, LogHead]:
        """The view as it is between two commits, and the head then, for a verification. The caller closes the view.

        Waits for the commit that is under way. OverloadedError while the view has failed: it may hold a batch that the
        log does not have.
        """
        with self._writing:
            if self._view_failed:
                raise OverloadedError("the view has failed and waits to be opened anew: verify again in a moment")
            return self.view_snapshot(), self.head

    @property
    def store_id(self) -> bytes:
        """What tells this store from every other."""
        return self._log.store_id

    @property
    def log_bytes(self) -> int:
        """The size of the log's records and headers."""
        return self._log.size_bytes

    def close(self) -> None:
        """Close the files. Nothing may be under way."""
        self._view.close()
        self._log.close()
