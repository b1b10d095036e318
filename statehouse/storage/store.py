"""The store: the event log and the view of it as one thing, and the only way in from above.

`commit` makes a group durable in the one order that is safe: append, sync, apply. When the view cannot take
what the log has, the append is rolled back and synced before anybody is answered, so that 'failed' means 'did
not happen'; that view is read from, and never written through again until it was opened anew and has caught up.

Reads may run in any thread, beside a commit. They see what the view has applied, which is what was answered and
perhaps a group that is about to be.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from threading import Lock

from attrs import frozen

from statehouse.errors import DiskFullError, OverloadedError, StorageError
from statehouse.limits import READ_CHUNK_BYTES, READ_CHUNK_EVENTS, RESPONSE_BYTES
from statehouse.storage import keys
from statehouse.storage.commit import AgentCounters, GroupCommit
from statehouse.storage.disk import is_full
from statehouse.storage.event_log import EventLog
from statehouse.storage.folding import OutcomeWindow
from statehouse.storage.stored_value import ValuePointer, entry, exists_of, response, section_reads, unpack_outcome
from statehouse.storage.view import View, ViewDamagedError, ViewError, ViewSnapshot, ViewWriteError
from statehouse.types import AgentId

__all__ = ["EventChunk", "Store"]


@frozen
class EventChunk:
    """Some of an agent's events, and where to go on: the next commit_ts to ask for, or None at the end."""

    events: list[bytes]
    next_ts: int | None


class Store:
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
        self._log = log
        self._view = view
        self._reopen_view = reopen_view
        self._condemn_view = condemn_view
        self._view_failed = False
        self._writing = Lock()
        self._outcomes = OutcomeWindow(view)
        self.head_ts = log.head.commit_ts
        """The newest commit that is durable and applied."""
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
        payloads = group.payloads()
        placements = self._log.append(payloads)
        self._log.sync()
        try:
            self._view.apply(group.view_writes(placements, self._log.head.chain, self._counters).items())
        except ViewError as error:
            self._view_failed = True
            self._log.roll_back()
            raise self._failed_view(error) from error
        except Exception:
            self._log.roll_back()  # a bug: what was appended was never applied, and must not be answered
            raise
        self.head_ts, self.head_time_ns = group.last_commit_ts, group.committed_at_ns
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
            self._view = self._reopen_view(self._view)
        except (ViewError, OSError) as error:
            raise self._failed_view(error) from error
        self._outcomes = OutcomeWindow(self._view)
        self._view_failed = False

    def _counters(self, prefix: bytes) -> AgentCounters:
        return AgentCounters.unpack(self._view.get(keys.meta_key(prefix)))

    # Point reads

    def stored(self, agent_prefix: bytes, key: bytes) -> bytes | None:
        """The stored value of a key, for its partition."""
        try:  # not `_readable`: this is asked for every write
            return self._view.get(keys.state_key(agent_prefix, key))
        except ViewError as error:
            raise self._unreadable(error) from error

    def counters(self, agent_prefix: bytes) -> AgentCounters:
        """The counters of an agent, for its partition."""
        with self._readable():
            return self._counters(agent_prefix)

    def committed_ts(self, txn_id: str) -> int | None:
        """The commit_ts of a transaction that committed lately, or None."""
        with self._readable():
            for bucket in keys.kept_outcome_buckets(self.head_ts):
                found = self._view.get(keys.outcome_key(bucket, txn_id))
                if found is not None:
                    return unpack_outcome(found)
        return None

    def get_state(self, agent: AgentId, key: bytes) -> bytes:
        """The encoded GetStateResponse: empty for a key that was never written."""
        return self._response(keys.state_key(keys.agent_prefix(agent), key))

    def get_state_at_version(self, agent: AgentId, key: bytes, version: int) -> bytes:
        """The encoded GetStateAtVersionResponse: empty for a version that never was."""
        return self._response(keys.version_key(keys.agent_prefix(agent), key, version))

    def _response(self, view_key: bytes) -> bytes:
        try:
            stored = self._view.get(view_key)
            return b"" if stored is None else response(stored, self._fetch)
        except ViewError as error:
            raise self._unreadable(error) from error

    # Scans: they block on the disk, and belong in a worker thread

    def list_keys(self, agent: AgentId) -> list[str]:
        """The live keys, in byte order, from one moment. OverloadedError past RESPONSE_BYTES."""
        prefix = keys.agent_prefix(agent)
        found: list[str] = []
        size_bytes = 0
        skip = len(prefix) + 1
        with self._readable(), closing(self._view.scan(*keys.state_range(prefix))) as rows:
            for key, stored in rows:
                if exists_of(stored):
                    found.append(key[skip:].decode())
                    size_bytes = _grown(size_bytes, len(key) - skip)
        return found

    def scan_prefix(self, agent: AgentId, key_prefix: bytes) -> list[bytes]:
        """The encoded StateEntry of each live key with the prefix, in byte order, from one moment."""
        prefix = keys.agent_prefix(agent)
        found: list[bytes] = []
        size_bytes = 0
        skip = len(prefix) + 1
        with self._readable(), closing(self._view.scan(*keys.state_range(prefix, key_prefix))) as rows:
            for key, stored in rows:
                encoded = entry(key[skip:], stored, self._fetch)
                if encoded is not None:
                    found.append(encoded)
                    size_bytes = _grown(size_bytes, len(encoded))
        return found

    def events(self, agent: AgentId, first_ts: int, last_ts: int) -> EventChunk:
        """Encoded ReplayEvents with commit_ts from `first_ts` to `last_ts`: about READ_CHUNK_BYTES of them."""
        wanted: list[tuple[bytes, bytes]] = []
        size_bytes = 0
        with self._readable():
            with closing(self._view.scan(*keys.event_range(keys.agent_prefix(agent), first_ts, last_ts))) as rows:
                for row in rows:
                    wanted.append(row)
                    size_bytes += int.from_bytes(row[1][4:8], "big")
                    if len(wanted) >= READ_CHUNK_EVENTS or size_bytes >= READ_CHUNK_BYTES:
                        break
                else:
                    return EventChunk(self._log.read_many(section_reads(wanted)), None)
            pointers = section_reads(wanted)
            return EventChunk(self._log.read_many(pointers), pointers[-1][0] + 1)

    def _fetch(self, pointer: ValuePointer) -> bytes:
        return self._log.read(pointer.commit_ts, pointer.offset, pointer.length, pointer.crc)

    # Failures

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Translate what a view raises while it is read."""
        try:
            yield
        except ViewError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: ViewError) -> StorageError:
        if isinstance(error, ViewDamagedError):
            self._condemn_view()
            return StorageError("the view is damaged: restart the daemon, which rebuilds it from the log")
        return StorageError("the view cannot be read at the moment")

    def _failed_view(self, error: ViewError | OSError) -> StorageError:
        if isinstance(error, ViewDamagedError) or (isinstance(error, ViewWriteError) and error.damaged):
            self._condemn_view()
        if is_full(error) if isinstance(error, OSError) else isinstance(error, ViewWriteError) and error.full:
            return DiskFullError("the disk is full; nothing of the commit was done")
        return StorageError("the view could not be written; nothing of the commit was done")

    # The rest

    def view_snapshot(self) -> ViewSnapshot:
        """The view as it is now, for the snapshotter. The caller closes it."""
        with self._readable():
            return self._view.snapshot()

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


def _grown(size_bytes: int, by: int) -> int:
    if size_bytes + by > RESPONSE_BYTES:
        raise OverloadedError(
            f"the answer would be larger than {RESPONSE_BYTES} bytes; ask for a narrower prefix",
            details={"limit": str(RESPONSE_BYTES)},
        )
    return size_bytes + by
