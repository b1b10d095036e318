"""What a store can be asked: the reads of a log and its view, in any thread, beside a commit.

They see what the view has applied, which is what was answered and perhaps a group that is about to be. A read of what
there is now takes for absent what has expired by a clock that was read before the rows were, so that it never shows as
absent what something else had replaced in time. A read of the past shows what the log has.

While a view is opened anew there is none to read: `ViewAwayError` says so at once, and `patiently` waits. How a read
finds what it is asked for stands elsewhere, in functions of a view: `past` (the state at a point), `versions` (of a
key), `listing` (what is there), `batch` (many keys), `agents`, `agent_events`, and `lineage` (what an agent has of
others, all reads being of its levels).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from threading import Lock
from typing import TypeVar

from attrs import frozen

from statehouse.errors import StorageError, StoreDamagedError
from statehouse.limits import LINEAGE_FORKS, PAGE_AGENTS, READ_CHUNK_BYTES, READ_CHUNK_EVENTS
from statehouse.storage import agent_events, agents, batch, expiries, keys, lineage, listing, past, versions
from statehouse.storage.agent_events import EventChunk
from statehouse.storage.commit import AgentCounters
from statehouse.storage.event_log import EventLog, LogHead, LogRecordAt
from statehouse.storage.expiries import SweepStep
from statehouse.storage.lineage import LevelsOf, Lineage, is_fork
from statehouse.storage.listing import Page
from statehouse.storage.past import DiffChunk
from statehouse.storage.section import sections_of
from statehouse.storage.section_fields import committed_at_ns, section_agent
from statehouse.storage.stored_value import (
    ValuePointer,
    as_of,
    entry,
    expiry_of,
    is_answer,
    response,
    shows,
    unpack_outcome,
)
from statehouse.storage.v1.log_pb2 import Watermark
from statehouse.storage.versions import HistoryChunk
from statehouse.storage.view import View, ViewClosedError, ViewDamagedError, ViewError, ViewSnapshot
from statehouse.storage.wire import WireError
from statehouse.types import AgentId

__all__ = ["EventChunk", "LogChunk", "Reading", "ViewAwayError"]

T = TypeVar("T")


class ViewAwayError(StorageError):
    """The view is closed at the moment: it is being opened anew, or could not be and will be tried again."""


@frozen
class LogChunk:
    """Some commits as (commit_ts, agent, encoded ReplayEvent), one for each agent; `next_ts` as in `EventChunk`."""

    events: list[tuple[int, AgentId, bytes]]
    next_ts: int | None


class Reading:
    """The half of a `Store` that reads. `Store` sets `_view` anew, holding `_writing`, when it was opened again.

    Every method raises StorageError when the view cannot be read (ViewAwayError: for the moment), and StoreDamagedError
    when the log is not what was written. `condemn_view()` has a damaged view rebuilt when it is opened next.
    """

    head: LogHead

    def __init__(self, log: EventLog, view: View, condemn_view: Callable[[], None]) -> None:
        self._log = log
        self._view = view
        self._condemn_view = condemn_view
        self._writing = Lock()
        self._applying = False  # whether the view may have a group that is not the head yet
        self.now_ns: Callable[[], int] = time.time_ns
        """The clock by which values expire, in nanoseconds since 1970; any thread may read it."""

    @property
    def head_ts(self) -> int:
        """The newest commit that is durable and applied."""
        return self.head.commit_ts

    @property
    def shown_ts(self) -> int:
        """The newest commit that a read may have shown, perhaps not the head yet: now is no earlier. StorageError."""
        if not self._applying:
            return self.head_ts
        with self._readable():
            return max(self.head_ts, Watermark.FromString(self._view.get(keys.WATERMARK_KEY) or b"").commit_ts)

    def patiently(self, read: Callable[[], T]) -> T:
        """What `read` gives, once a view that is being opened anew is there. Blocks: belongs in a worker thread.

        What `read` raises passes; ViewAwayError when the view could not be opened.
        """
        while True:
            view = self._view
            try:
                return read()
            except ViewAwayError:
                with self._writing:  # whoever opens the view anew has it until that is done
                    if self._view is view:
                        raise

    # Point reads

    def committed_ts(self, txn_id: str) -> int | None:
        """The commit_ts of a transaction that committed lately, or None."""
        with self._readable():
            for bucket in keys.kept_outcome_buckets(self.head_ts):
                found = self._view.get(keys.outcome_key(bucket, txn_id))
                if found is not None:
                    return unpack_outcome(found)
        return None

    def get_state(self, agent: AgentId, key: bytes, at_ts: int | None = None) -> bytes:
        """The encoded GetStateResponse, as of a commit or now: empty for a key that had not been written."""
        prefix = keys.agent_prefix(agent)
        try:  # not `_readable`: this is what is asked most
            view = self._view
            stored = view.get(keys.state_key(prefix, key)) if at_ts is None else None
            if stored is None and (at_ts is not None or is_fork(view, prefix)):
                stored = past.stored_at(view, LevelsOf(view, agent, prefix), key, at_ts)
            if stored is None:
                return b""
            if is_answer(stored):
                return stored
            if at_ts is None and expiry_of(stored):
                # Most values do not expire, so the clock was not read yet: what there is must be looked for behind it.
                now_ns = self.now_ns()
                stored = past.stored_at(view, LevelsOf(view, agent, prefix), key)
                return b"" if stored is None else response(as_of(stored, now_ns), self._fetch)
            return response(stored, self._fetch)
        except ViewError as error:
            raise self._unreadable(error) from error

    def get_state_at_version(self, agent: AgentId, key: bytes, version: int) -> bytes:
        """The encoded GetStateAtVersionResponse: empty for a version that never was."""
        prefix = keys.agent_prefix(agent)
        try:
            view = self._view
            stored = view.get(keys.version_key(prefix, key, version))
            if stored is None and is_fork(view, prefix):
                stored = lineage.stored_version(view, LevelsOf(view, agent, prefix), key, version)
            return b"" if stored is None else response(stored, self._fetch)
        except ViewError as error:
            raise self._unreadable(error) from error

    # Scans: they block on the disk, and belong in a worker thread

    def list_keys(self, agent: AgentId, at_ts: int | None = None) -> list[str]:
        """The live keys, in byte order, as of a commit or now, from one moment. OverloadedError past RESPONSE_BYTES."""
        found: list[str] = []
        size_bytes = 0
        now_ns = self._now_ns_unless(at_ts)
        with self._readable(), closing(self._rows_at(agent, b"", at_ts)) as rows:
            for key, stored, _ in rows:
                if stored is not None and shows(stored, now_ns):
                    found.append(key.decode())
                    size_bytes = listing.grown(size_bytes, len(key))
        return found

    def scan_prefix(self, agent: AgentId, key_prefix: bytes, at_ts: int | None = None) -> list[bytes]:
        """The encoded StateEntry of each live key with the prefix, likewise."""
        found: list[bytes] = []
        size_bytes = 0
        now_ns = self._now_ns_unless(at_ts)
        with self._readable(), closing(self._rows_at(agent, key_prefix, at_ts)) as rows:
            for key, stored, _ in rows:
                encoded = None if stored is None else entry(key, stored, self._fetch, now_ns)
                if encoded is not None:
                    found.append(encoded)
                    size_bytes = listing.grown(size_bytes, len(encoded))
        return found

    def _rows_at(self, agent: AgentId, key_prefix: bytes, at_ts: int | None) -> past.RowsAt:
        return past.rows_at(self._view, self._levels_of(agent), key_prefix, None, at_ts)

    def _now_ns_unless(self, at_ts: int | None) -> int:
        """The clock, for a read of now; 0, at which nothing has expired, for one of the past."""
        return self.now_ns() if at_ts is None else 0

    def list_page(
        self, agent: AgentId, after: bytes | None, limit: int, at_ts: int | None, now_ns: int = 0
    ) -> Page[str]:
        """Some of `list_keys`, from behind the key `after`, less what has expired; see `listing.keys_page`."""
        with self._readable():
            return listing.keys_page(self._view, self._levels_of(agent), b"", after, limit, at_ts, now_ns)

    def scan_page(
        self, agent: AgentId, key_prefix: bytes, after: bytes | None, limit: int, at_ts: int | None, now_ns: int = 0
    ) -> Page[bytes]:
        """Some of `scan_prefix`, likewise."""
        with self._readable():
            levels = self._levels_of(agent)
            return listing.scan_page(self._view, self._log.read_many, levels, key_prefix, after, limit, at_ts, now_ns)

    def batch_get(self, wanted: Sequence[tuple[AgentId, bytes]], at_ts: int | None = None) -> list[bytes]:
        """The encoded BatchGetEntry of each key, in order, from one moment. OverloadedError past RESPONSE_BYTES."""
        now_ns = self._now_ns_unless(at_ts)
        with self._readable(), closing(self._view.snapshot()) as view:
            return batch.batch_get(view, self._log.read_many, wanted, at_ts, now_ns)

    def batch_at_hand(self, wanted: Sequence[tuple[AgentId, bytes]], in_time: Callable[[], bool]) -> list[bytes] | None:
        """The same as it is now, if it is quickly had, on the event loop; see `batch.batch_at_hand`."""
        now_ns = self.now_ns()
        with self._readable(), closing(self._view.snapshot()) as view:
            return batch.batch_at_hand(view, wanted, now_ns, in_time)

    def history(self, agent: AgentId, key: bytes, before_version: int | None, limit: int | None) -> HistoryChunk:
        """Encoded HistoryEntrys of the versions below `before_version`, newest first; see `versions.history`."""
        with self._readable():
            return versions.history(self._view, self._log.read_many, self._levels_of(agent), key, before_version, limit)

    def diff(self, agent: AgentId, from_ts: int, to_ts: int, prefix: bytes, after: bytes | None) -> DiffChunk:
        """Encoded DiffEntrys of the keys behind `after` with the prefix; see `past.diff`."""
        with self._readable():
            levels = self._levels_of(agent)
            return past.diff(self._view, self._log.read_many, levels, (from_ts, to_ts), prefix, after)

    def ts_at_time(self, agent: AgentId, time_ns: int) -> int:
        """The agent's last event that was committed at or before the time; 0: there is none."""
        with self._readable():
            return agent_events.ts_at_time(self._view, self._log.read_many, agent, time_ns, self.head_ts)

    def list_agents(self, namespace: str, prefix: str, after: str | None, limit: int) -> Page[bytes]:
        """The encoded AgentInfo of the agents whose ids begin with `prefix`, behind `after`, at most PAGE_AGENTS.

        All of one moment: an agent that ends meanwhile must not be shown as deleted before its last commit.
        """
        with self._readable(), closing(self._view.snapshot()) as view:
            return agents.list_agents(view, namespace, prefix, after, limit)

    def agents(self, prefix: str, after: str | AgentId | None) -> list[tuple[AgentId, AgentCounters]]:
        """The next PAGE_AGENTS agents of namespaces with the prefix, behind a whole namespace or an agent."""
        with self._readable():
            return agents.agents_of(self._view, agents.namespaces_range(prefix, after), PAGE_AGENTS)

    def events(self, agent: AgentId, first_ts: int, last_ts: int) -> EventChunk:
        """Encoded ReplayEvents with commit_ts from `first_ts` to `last_ts`: about READ_CHUNK_BYTES of them."""
        with self._readable():
            return agent_events.events(self._view, self._log.read_many, agent, first_ts, last_ts)

    def lineage(self, agent: AgentId, limit: int, before_ts: int) -> Lineage:
        """What the agent was forked from, and what was forked from it before a commit, at most LINEAGE_FORKS of these.

        `before_ts` 0: whenever.
        """
        with self._readable():
            return lineage.lineage(self._view, agent, min(limit, LINEAGE_FORKS), before_ts or lineage.NO_END)

    def log_sections(self, first_ts: int, last_ts: int) -> LogChunk:
        """The events of all agents from `first_ts` to `last_ts`: whole commits, of about READ_CHUNK_BYTES."""
        found: list[tuple[int, AgentId, bytes]] = []
        size_bytes = 0
        with _whole(), closing(self._log.commits.records(first_ts, min(last_ts, self.shown_ts))) as records:
            for record in records:
                if len(found) >= READ_CHUNK_EVENTS or size_bytes >= READ_CHUNK_BYTES:
                    return LogChunk(found, record.commit_ts)
                size_bytes += len(record.payload)
                for section in _sections(record):
                    agent = section_agent(section)
                    if agent.agent_id:
                        found.append((record.commit_ts, agent, section))
        return LogChunk(found, None)

    def log_ts_at_time(self, time_ns: int) -> int:
        """The last commit of all that was made at or before the time; 0: there is none."""
        with _whole():
            return self._log.commits.last(
                self.head_ts, lambda record: committed_at_ns(next(_sections(record))) <= time_ns
            )

    # What has expired

    def swept_until(self) -> int:
        """The time up to which all that expired has been deleted, 0: nothing was."""
        with self._readable():
            return expiries.swept_until(self._view)

    def next_expiry(self, after_ns: int) -> int | None:
        """The first time after that one at which there may be something to delete; see `expiries.next_expiry`."""
        with self._readable():
            return expiries.next_expiry(self._view, after_ns)

    def sweep(self, after_ns: int, until_ns: int) -> Iterator[SweepStep]:
        """What expired between two times, in steps that block; see `expiries.sweep`."""
        steps = expiries.sweep(self._view, after_ns, until_ns)
        while True:
            with self._readable():
                try:
                    step = next(steps)
                except StopIteration:
                    return
            yield step

    # The view as a whole

    def view_snapshot(self) -> ViewSnapshot:
        """The view as it is now. The caller closes it."""
        with self._readable():
            return self._view.snapshot()

    def snapshot_unreadable(self, error: ViewError) -> StorageError:
        """What a failed read of a `view_snapshot` comes to; a damaged view is rebuilt at the next start."""
        return self._unreadable(error)

    def _levels_of(self, agent: AgentId) -> LevelsOf:
        return LevelsOf(self._view, agent)

    # Failures

    def _fetch(self, pointer: ValuePointer) -> bytes:
        return self._log.read(pointer.commit_ts, pointer.offset, pointer.length, pointer.crc)

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
        kind = ViewAwayError if isinstance(error, ViewClosedError) else StorageError
        return kind("the view cannot be read at the moment")


def _sections(record: LogRecordAt) -> Iterator[bytes]:
    """The sections of a commit: at least one."""
    for first, last in sections_of(record.payload):
        yield record.payload[first:last]


@contextmanager
def _whole() -> Iterator[None]:
    """Translate what a record that is none of a transaction raises: its checksum is right, so it was written so."""
    try:
        yield
    except WireError as error:
        raise StoreDamagedError(f"a record of the log is not a transaction: {error}") from error
