"""Folding the log into a view: what recovery and a view that was reopened do with the records they are behind.

A batch is the work of many records and the watermark behind them, so that at every moment the view is exactly
the fold of the log up to its watermark.
"""

from contextlib import closing
from typing import Final

from attrs import define

from statehouse.errors import StoreDamagedError
from statehouse.storage import keys
from statehouse.storage.commit import AgentCounters, note_writes, outcome_key, section_writes, watermark
from statehouse.storage.event_log import LogRecordAt
from statehouse.storage.lineage import Levels, levels_of, stored_version
from statehouse.storage.log_format import segment_name
from statehouse.storage.record_notes import NO_NOTES, read_notes
from statehouse.storage.section import SectionOperation, sections_of, walk_section
from statehouse.storage.section_fields import committed_at_ns
from statehouse.storage.stored_value import exists_of, outcome
from statehouse.storage.view import View, ViewDamagedError
from statehouse.storage.wire import WireError
from statehouse.types import AgentId

BATCH_WRITES: Final = 8_192


class LogFolder:
    """Folds records, in order, into a view that has applied exactly those before them."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._writes: dict[bytes, bytes | None] = {}
        self._agents: dict[AgentId, _Tally] = {}
        """The agents of this batch."""
        self._forked: set[AgentId] = set()
        """Likewise those that came to be in it, as forks."""
        self._outcomes = OutcomeWindow(view)
        self._newest: LogRecordAt | None = None
        self.records = 0
        """How many were folded."""

    def add(self, record: LogRecordAt) -> None:
        """Fold one record; it is in the view when the batch is full, or at `flush`.

        Raises StoreDamagedError when the record is whole but is not what this store writes, ViewDamagedError when the
        view is further than it says, and what `View.apply` raises.
        """
        try:
            if self._forked and self._is_of_a_fork(record.payload):
                self.flush()  # so that what it inherits is in the view, where it is looked up
            self._fold(record)
        except WireError as error:
            segment, offset = record.placement
            raise StoreDamagedError(
                f"the record of commit_ts {record.commit_ts}, in segment {segment} at offset {offset}, is not a "
                f"transaction: {error}",
                details={"file": segment_name(segment), "offset": str(offset), "commit_ts": str(record.commit_ts)},
            ) from error
        self._newest = record
        self.records += 1
        if len(self._writes) >= BATCH_WRITES:
            self.flush()

    def flush(self) -> None:
        """Apply what is folded and not yet in the view."""
        record, self._newest = self._newest, None
        if record is None:
            return
        first, last = sections_of(record.payload)[0]
        time_ns = committed_at_ns(record.payload[first:last])
        self._writes[keys.WATERMARK_KEY] = watermark(record.commit_ts, record.chain, time_ns)
        for tally in self._agents.values():
            self._writes[keys.meta_key(tally.prefix)] = tally.counters().pack()
        self._view.apply(self._writes.items())
        # failpoint: recover.batch_folded
        self._writes.clear()
        self._agents.clear()
        self._forked.clear()
        self._outcomes.advance(record.commit_ts)

    def _is_of_a_fork(self, payload: bytes) -> bool:
        """Whether the record is of an agent that was forked in this batch."""
        return any(walk_section(payload[first:last])[0] in self._forked for first, last in sections_of(payload))

    def _fold(self, record: LogRecordAt) -> None:
        payload, commit_ts = record.payload, record.commit_ts
        txn_id, section = "", b""
        prefixes: list[bytes] = []
        for first, last in sections_of(payload):
            section = payload[first:last]
            agent, txn_id, stamped_ts, operations = walk_section(section)
            if stamped_ts != commit_ts:
                raise WireError(f"a section says commit_ts {stamped_ts}")
            if not agent.agent_id:
                continue
            tally = self._agents.get(agent)
            if tally is None:
                tally = self._agents[agent] = self._tally(agent, commit_ts)
            prefixes.append(tally.prefix)
            tally.first_commit_ts = tally.first_commit_ts or commit_ts
            tally.last_commit_ts = commit_ts
            tally.commits += 1
            tally.operations += len(operations)
            tally.live_keys += self._live_keys_gained(tally, operations)
            place = record.placement.offset + first
            section_writes(self._writes, tally.prefix, section, operations, tally.counters(), place)
        if not txn_id:
            raise WireError("no transaction id")
        if (notes := read_notes(payload)) is not NO_NOTES:
            note_writes(self._writes, notes, prefixes, commit_ts, committed_at_ns(section))
            if notes.fork is not None:
                fork = notes.fork.agent
                prefix = self._tally(fork, commit_ts).prefix  # nothing is counted of it yet, or the view is damaged
                self._agents[fork] = _Tally(fork, prefix, *notes.fork.inherited)
                self._forked.add(fork)
        self._writes[outcome_key(commit_ts, txn_id)] = outcome(commit_ts)

    def _tally(self, agent: AgentId, commit_ts: int) -> "_Tally":
        """What the view has counted of an agent before a commit. ViewDamagedError when it has counted that, too."""
        prefix = keys.agent_prefix(agent)
        counters = AgentCounters.unpack(self._view.get(keys.meta_key(prefix)))
        if counters.last_commit_ts >= commit_ts:
            raise ViewDamagedError(
                f"the view has not applied commit_ts {commit_ts}, and has counted {counters.last_commit_ts}"
            )
        return _Tally(agent, prefix, *counters)

    def _live_keys_gained(self, tally: "_Tally", operations: list[SectionOperation]) -> int:
        """By how much the operations change the number of live keys; each key counts from its latest state."""
        gained = 0
        exists: dict[bytes, bool] = {}
        for key, version, value_offset, _, _ in operations:
            was = exists.get(key)
            if was is None:
                was = version > 1 and self._exists(tally, key, version - 1)
            exists[key] = value_offset is not None
            gained += exists[key] - was
        return gained

    def _exists(self, tally: "_Tally", key: bytes, version: int) -> bool:
        """Whether the key is live; `version` is its newest."""
        state_key = keys.state_key(tally.prefix, key)
        stored = self._writes.get(state_key) or self._view.get(state_key)
        if stored is None:  # of all that were written to, only a fork has keys without a state of its own
            if tally.levels is None:
                tally.levels = levels_of(self._view, tally.agent, tally.prefix)[1:]
            stored = stored_version(self._view, tally.levels, key, version)
        return stored is not None and exists_of(stored)


@define
class _Tally:
    """An agent's counters while a batch is folded."""

    agent: AgentId
    prefix: bytes
    first_commit_ts: int
    last_commit_ts: int
    commits: int
    operations: int
    live_keys: int
    levels: Levels | None = None
    """Those that it has inherited; None: nobody had to know."""

    def counters(self) -> AgentCounters:
        return AgentCounters(self.first_commit_ts, self.last_commit_ts, self.commits, self.operations, self.live_keys)


class OutcomeWindow:
    """Keeps the outcomes of recent transactions down to the buckets that are kept."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._first_bucket = 0

    def advance(self, head_commit_ts: int) -> None:
        """Forget what is too old now that this is the newest commit. Raises what `View.apply` raises."""
        oldest_kept = keys.kept_outcome_buckets(head_commit_ts)[-1]
        if oldest_kept <= self._first_bucket:
            return
        # Buckets that were forgotten before are not scanned again: they are full of LevelDB's own tombstones.
        with closing(self._view.scan(*keys.outcome_range(self._first_bucket, oldest_kept - 1))) as rows:
            late = [(key, None) for key, _ in rows]
        if late:
            self._view.apply(late)
        self._first_bucket = oldest_kept
