"""A commit on its way to the disk: from what a partition prepares to what the log and the view are given.

A partition prepares a section without its stamp (`prepare_section`). The sequencer fixes commit_ts and time
for a group, and `GroupCommit` joins the pieces: the payloads for the log, and, once it is known where in the
log they will stand, the writes for the view. Recovery turns the sections that it reads from the log into
writes by the same `section_writes`, so that a rebuilt view is the view.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple
from zlib import crc32

from attrs import frozen

from statehouse.limits import VALUE_INLINE_BYTES
from statehouse.storage import keys
from statehouse.storage.event_log import Placement
from statehouse.storage.section import SectionOperation, record_of, section_body, stamp
from statehouse.storage.stored_value import ValuePointer, inline_value, outcome, section_pointer
from statehouse.storage.v1.log_pb2 import AgentMeta, Watermark

FORMAT_VERSION = 1
"""Of the view; segments and snapshots have versions of their own."""


class AgentCounters(NamedTuple):
    """What the view knows of one agent (AgentMeta); 0 for a commit_ts that is not known yet."""

    first_commit_ts: int = 0
    last_commit_ts: int = 0
    commits: int = 0
    operations: int = 0
    live_keys: int = 0

    @classmethod
    def unpack(cls, packed: bytes | None) -> "AgentCounters":
        """From the value of the agent's `m` column; None for an agent that the view does not know."""
        if packed is None:
            return cls()
        meta = AgentMeta.FromString(packed)
        return cls(meta.first_commit_ts, meta.last_commit_ts, meta.commits, meta.operations, meta.live_keys)

    def pack(self) -> bytes:
        """The value of the agent's `m` column."""
        return AgentMeta(
            first_commit_ts=self.first_commit_ts,
            last_commit_ts=self.last_commit_ts,
            commits=self.commits,
            operations=self.operations,
            live_keys=self.live_keys,
        ).SerializeToString()

    def plus(self, *, operations: int, live_keys: int) -> "AgentCounters":
        """After one more commit, whose commit_ts is not known yet."""
        return AgentCounters(
            self.first_commit_ts,
            self.last_commit_ts,
            self.commits + 1,
            self.operations + operations,
            self.live_keys + live_keys,
        )

    def at(self, first_commit_ts: int, last_commit_ts: int) -> "AgentCounters":
        """The same counts, with the places of the first and the last commit."""
        return AgentCounters(first_commit_ts, last_commit_ts, self.commits, self.operations, self.live_keys)


@frozen
class PreparedSection:
    """One agent's part of a commit, complete but for the stamp. Value offsets count from the body's first byte."""

    column_prefix: bytes
    """Empty for the section of a transaction that touched no agent."""
    body: bytes
    operations: Sequence[SectionOperation]
    counters: AgentCounters
    """As they are after this commit."""


@frozen
class PreparedCommit:
    """What one transaction does, prepared by all of its partitions."""

    txn_id: str
    sections: Sequence[PreparedSection]

    @property
    def size_bytes(self) -> int:
        """About what it takes in the log."""
        return sum(len(section.body) for section in self.sections)


def prepare_section(
    column_prefix: bytes,
    agent_fields: bytes,
    txn_id: str,
    operations: Sequence[tuple[bytes, bytes | None, int]],
    counters: AgentCounters,
) -> PreparedSection:
    """Encode a partition's half of a section; `operations` are (key, value or None, version)."""
    body = section_body(agent_fields, txn_id, operations)
    return PreparedSection(column_prefix, body.encoded, body.operations, counters)


def empty_commit(txn_id: str) -> PreparedCommit:
    """The commit of a transaction without operations: it takes a commit_ts, and no agent's replay shows it."""
    return PreparedCommit(txn_id, (prepare_section(b"", b"", txn_id, (), AgentCounters()),))


class GroupCommit:
    """Commits with consecutive timestamps that become durable together."""

    def __init__(self, first_commit_ts: int, committed_at_ns: int, commits: Sequence[PreparedCommit]) -> None:
        self.first_commit_ts = first_commit_ts
        self.last_commit_ts = first_commit_ts + len(commits) - 1
        self.committed_at_ns = committed_at_ns
        self._commits = commits
        self._sections: list[tuple[list[bytes], list[int]]] = []

    def payloads(self) -> list[bytes]:
        """The log records, in order of commit_ts."""
        payloads = []
        self._sections.clear()
        for commit_ts, commit in enumerate(self._commits, start=self.first_commit_ts):
            ending = stamp(commit_ts, self.committed_at_ns)
            stamped = [section.body + ending for section in commit.sections]
            payload, offsets = record_of(stamped)
            self._sections.append((stamped, offsets))
            payloads.append(payload)
        return payloads

    def view_writes(
        self, placements: Sequence[Placement], chain: bytes, stored_counters: Callable[[bytes], AgentCounters]
    ) -> dict[bytes, bytes | None]:
        """What the view applies once the group is in the log; `payloads` was called, and stands at `placements`.

        `chain` is the log's chain value behind the group, `stored_counters(prefix)` what the view has of an agent.
        """
        writes: dict[bytes, bytes | None] = {}
        first_seen: dict[bytes, int] = {}
        placed = zip(self._commits, self._sections, placements, strict=True)
        for commit_ts, (commit, (stamped, offsets), placement) in enumerate(placed, start=self.first_commit_ts):
            for prepared, section, offset in zip(commit.sections, stamped, offsets, strict=True):
                prefix = prepared.column_prefix
                if not prefix:
                    continue
                counters = prepared.counters
                first_commit_ts = counters.first_commit_ts
                if not first_commit_ts:
                    # Prepared before the agent's first commit was durable: that commit may be this one, stand
                    # earlier in this group, or have been applied since.
                    if counters.commits > 1 and prefix not in first_seen:
                        first_seen[prefix] = stored_counters(prefix).first_commit_ts
                    first_commit_ts = first_seen.setdefault(prefix, commit_ts)
                section_writes(writes, prefix, section, prepared.operations, commit_ts, placement.offset + offset)
                writes[keys.meta_key(prefix)] = counters.at(first_commit_ts, commit_ts).pack()
            writes[outcome_key(commit_ts, commit.txn_id)] = outcome(commit_ts)
        writes[keys.WATERMARK_KEY] = watermark(self.last_commit_ts, chain, self.committed_at_ns)
        return writes


def section_writes(
    writes: dict[bytes, bytes | None],
    prefix: bytes,
    section: bytes,
    operations: Sequence[SectionOperation],
    commit_ts: int,
    offset: int,
) -> None:
    """Add to `writes` what one section does to its agent's columns, all but `m`.

    `section` stands at `offset` of its segment; the operations' value offsets count from its first byte.
    """
    for key, version, value_offset, value_length in operations:
        if value_offset is None:
            version_row = state_row = inline_value(None, version, commit_ts)
        else:
            value = section[value_offset : value_offset + value_length]
            version_row = ValuePointer(commit_ts, version, offset + value_offset, value_length, crc32(value)).pack()
            state_row = inline_value(value, version, commit_ts) if value_length <= VALUE_INLINE_BYTES else version_row
        writes[keys.state_key(prefix, key)] = state_row
        writes[keys.version_key(prefix, key, version)] = version_row
    writes[keys.event_key(prefix, commit_ts)] = section_pointer(offset, len(section), crc32(section))


def outcome_key(commit_ts: int, txn_id: str) -> bytes:
    """The key under which the view remembers that a transaction committed."""
    return keys.outcome_key(keys.outcome_bucket(commit_ts), txn_id)


def watermark(commit_ts: int, chain: bytes, committed_at_ns: int) -> bytes:
    """The value of the view's watermark."""
    return Watermark(
        commit_ts=commit_ts, chain=chain, format_version=FORMAT_VERSION, committed_at_ns=committed_at_ns
    ).SerializeToString()
