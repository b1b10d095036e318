"""A commit on its way to the disk: from what a partition prepares to what the log and the view are given.

A partition prepares a section without its stamp (`prepare_section`). The sequencer fixes commit_ts and time
for a group, and `GroupCommit` joins the pieces: the payloads for the log, and, once it is known where in the
log they will stand, the writes for the view. Recovery turns the sections that it reads from the log into
writes by the same `section_writes`, so that a rebuilt view is the view.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from zlib import crc32

from attrs import frozen
from google.protobuf.message import DecodeError

from statehouse.limits import VALUE_INLINE_BYTES
from statehouse.storage import keys
from statehouse.storage.event_log import Placement
from statehouse.storage.expiry_keys import agent_expiry_key, expiry_key, fork_expiry_key, swept_key
from statehouse.storage.note_rows import END_ROW, child_row, commit_row, fork_row, idempotency_row, lease_row, swept_row
from statehouse.storage.record_notes import NO_NOTES, ForkNote, Notes, encode_notes
from statehouse.storage.section import FOR_GOOD, SectionOperation, record_of, section_body, stamp
from statehouse.storage.section_fields import committed_at_ns
from statehouse.storage.stored_value import (
    ValuePointer,
    event_row,
    expires_at_ns,
    expiring,
    inline_value,
    outcome,
)
from statehouse.storage.v1.log_pb2 import AgentMeta, Watermark
from statehouse.storage.view import ViewDamagedError

FORMAT_VERSION = 2
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
        """From the value of the agent's `m` column; None for an agent that the view does not know. ViewDamagedError."""
        if packed is None:
            return cls()
        try:
            meta = AgentMeta.FromString(packed)
        except DecodeError as error:
            raise ViewDamagedError(f"not the counters of an agent: {packed[:40].hex()}") from error
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
    notes: Notes = NO_NOTES

    @property
    def size_bytes(self) -> int:
        """About what it takes in the log."""
        size = sum(len(section.body) for section in self.sections)
        return size if self.notes is NO_NOTES else size + len(encode_notes(self.notes))


def prepare_section(
    column_prefix: bytes,
    agent_fields: bytes,
    txn_id: str,
    operations: Sequence[tuple[bytes, bytes | None, int]],
    counters: AgentCounters,
    metadata: bytes = b"",
    ttls_s: Mapping[int, int] = FOR_GOOD,
    *,
    expired: bool = False,
) -> PreparedSection:
    """Encode a partition's half of a section; `operations` are (key, value or None, version).

    `metadata` is what `section.metadata_fields` gave; `ttls_s` and `expired` are as for `section.section_body`.
    """
    body = section_body(agent_fields, txn_id, operations, metadata, ttls_s, expired=expired)
    return PreparedSection(column_prefix, body.encoded, body.operations, counters)


def empty_commit(txn_id: str, notes: Notes = NO_NOTES) -> PreparedCommit:
    """The commit of a transaction without operations: it takes a commit_ts, and no agent's replay shows it.

    A change of a lease and a fork are such commits, with a note.
    """
    return PreparedCommit(txn_id, (prepare_section(b"", b"", txn_id, (), AgentCounters()),), notes)


class GroupCommit:
    """Commits with consecutive timestamps that become durable together."""

    def __init__(self, first_commit_ts: int, committed_at_ns: int, commits: Sequence[PreparedCommit]) -> None:
        self.first_commit_ts = first_commit_ts
        self.last_commit_ts = first_commit_ts + len(commits) - 1
        self.committed_at_ns = committed_at_ns
        self.next_expiry_ns = 0
        """Once it is in the view: when the sweeper has to look at something of it (`expiry_keys`); 0: never."""
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
            if commit.notes is not NO_NOTES:
                payload += encode_notes(commit.notes)
            self._sections.append((stamped, offsets))
            payloads.append(payload)
        return payloads

    def sections(self) -> list[tuple[int, bytes, bytes]]:
        """(commit_ts, column prefix of the agent, section) of each section that has operations, in their order.

        `payloads` was called. A section is the bytes that replay sends.
        """
        return [
            (commit_ts, prepared.column_prefix, section)
            for commit_ts, (commit, (stamped, _)) in enumerate(
                zip(self._commits, self._sections, strict=True), start=self.first_commit_ts
            )
            for prepared, section in zip(commit.sections, stamped, strict=True)
            if prepared.operations and prepared.column_prefix
        ]

    def forks(self) -> list[tuple[int, ForkNote]]:
        """The forks that are in it, each with its commit_ts."""
        return [
            (commit_ts, commit.notes.fork)
            for commit_ts, commit in enumerate(self._commits, start=self.first_commit_ts)
            if commit.notes.fork is not None
        ]

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
                counters = counters.at(first_commit_ts, commit_ts)
                place = placement.offset + offset
                self._expires(section_writes(writes, prefix, section, prepared.operations, counters, place))
                writes[keys.meta_key(prefix)] = counters.pack()
            if commit.notes is not NO_NOTES:
                prefixes = [prepared.column_prefix for prepared in commit.sections if prepared.column_prefix]
                note_writes(writes, commit.notes, prefixes, commit_ts, self.committed_at_ns)
                if commit.notes.fork is not None:
                    self._expires(self.committed_at_ns + 1)
            writes[outcome_key(commit_ts, commit.txn_id)] = outcome(commit_ts)
        writes[keys.WATERMARK_KEY] = watermark(self.last_commit_ts, chain, self.committed_at_ns)
        return writes

    def _expires(self, at_ns: int) -> None:
        if at_ns:
            self.next_expiry_ns = min(self.next_expiry_ns or at_ns, at_ns)


def section_writes(
    writes: dict[bytes, bytes | None],
    prefix: bytes,
    section: bytes,
    operations: Sequence[SectionOperation],
    counters: AgentCounters,
    offset: int,
) -> int:
    """Add to `writes` what one section does to its agent's columns, all but `m`.

    `section` stands at `offset` of its segment; the operations' value offsets count from its first byte. `counters`
    are the agent's behind it, so that its commit is their last. Gives when the first of its values expires, 0: none.
    """
    commit_ts = counters.last_commit_ts
    first_expiry_ns = written_ns = 0
    for key, version, value_offset, value_length, ttl_s in operations:
        if value_offset is None:
            version_row = state_row = inline_value(None, version, commit_ts)
        else:
            value = section[value_offset : value_offset + value_length]
            version_row = ValuePointer(commit_ts, version, offset + value_offset, value_length, crc32(value)).pack()
            state_row = inline_value(value, version, commit_ts) if value_length <= VALUE_INLINE_BYTES else version_row
            if ttl_s:
                # Once for all of them: the time stands behind the operations, which may be many.
                written_ns = written_ns or committed_at_ns(section)
                at_ns = expires_at_ns(written_ns, ttl_s)
                version_row, state_row = expiring(version_row, at_ns), expiring(state_row, at_ns)
                writes[expiry_key(at_ns, prefix, key, version)] = commit_row(commit_ts)
                writes[agent_expiry_key(prefix, at_ns, key, version)] = commit_row(commit_ts)
                first_expiry_ns = min(first_expiry_ns or at_ns, at_ns)
        writes[keys.state_key(prefix, key)] = state_row
        writes[keys.version_key(prefix, key, version)] = version_row
    writes[keys.event_key(prefix, commit_ts)] = event_row(offset, len(section), crc32(section), *counters[2:])
    return first_expiry_ns


def note_writes(
    writes: dict[bytes, bytes | None], notes: Notes, prefixes: Sequence[bytes], commit_ts: int, committed_at_ns: int
) -> None:
    """Add to `writes` what the notes of a commit do; `prefixes` are those of the agents that it wrote to."""
    if notes.idempotency is not None:
        row = idempotency_row(committed_at_ns, notes.idempotency.fingerprint)
        for prefix in prefixes:
            writes[keys.idempotency_key(prefix, notes.idempotency.key, commit_ts)] = row
    if notes.lease is not None:
        writes[keys.lease_key(keys.agent_prefix(notes.lease.agent), commit_ts)] = lease_row(notes.lease)
    if notes.fork is not None:
        fork = notes.fork
        prefix = keys.agent_prefix(fork.agent)
        writes[keys.fork_key(prefix)] = fork_row(fork, commit_ts)
        writes[keys.meta_key(prefix)] = AgentCounters(*fork.inherited).pack()
        writes[keys.child_key(keys.agent_prefix(fork.parent), commit_ts)] = child_row(fork)
        writes[fork_expiry_key(committed_at_ns, prefix)] = commit_row(commit_ts)
    if notes.end is not None:
        writes[keys.end_key(keys.agent_prefix(notes.end), commit_ts)] = END_ROW
    if notes.swept_until_ns is not None:
        writes[swept_key(commit_ts)] = swept_row(notes.swept_until_ns)


def outcome_key(commit_ts: int, txn_id: str) -> bytes:
    """The key under which the view remembers that a transaction committed."""
    return keys.outcome_key(keys.outcome_bucket(commit_ts), txn_id)


def watermark(commit_ts: int, chain: bytes, committed_at_ns: int) -> bytes:
    """The value of the view's watermark."""
    return Watermark(
        commit_ts=commit_ts, chain=chain, format_version=FORMAT_VERSION, committed_at_ns=committed_at_ns
    ).SerializeToString()
