"""The rows that the log says a view must have: what a verification compares the view with.

This is written apart from `commit.section_writes` and `commit.note_writes`, which make the rows that the view gets: a
mistake there, or a view that was written by another hand, shows as a difference. What both share is the table of keys
and the format of a record.

Every record gives its agents' events, the versions of its operations, its transaction's outcome, and the rows of its
notes. The other rows follow from these: the state of a key is its newest version, an agent's counters count its events,
versions and live keys (`view_walk.py`). So do the counts in an event row: of it, the log gives the section pointer. And
a fork inherits the counters that its parent had, which its note says and its row does not: they are compared with it.
"""

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

from statehouse.limits import VALUE_INLINE_BYTES
from statehouse.storage import keys
from statehouse.storage.log_format import LogRecordAt
from statehouse.storage.record_notes import LeaseChange, Notes, read_notes
from statehouse.storage.section import SectionOperation, sections_of, walk_section
from statehouse.storage.section_fields import committed_at_ns
from statehouse.storage.stored_value import inline_value
from statehouse.storage.view import Row
from statehouse.storage.wire import LENGTH_DELIMITED, VARINT, WireError, tag, varint
from statehouse.types import AgentId

__all__ = [
    "EVENT",
    "EXPIRY",
    "POINTER",
    "POINTER_BYTES",
    "RecordSection",
    "compared_event",
    "compared_fork",
    "fork_row_of",
    "note_rows",
    "outcome_row",
    "read_record",
    "section_rows",
    "state_row",
]

POINTER: Final = Struct(">BQQIII")
"""0, commit_ts, version, offset, length, CRC-32: a value that stands in the log."""
POINTER_BYTES: Final = POINTER.size
EVENT: Final = Struct(">IIIQQQ")
"""Offset, length, CRC-32: a section that stands in the log; commits, operations, live keys of the agent behind it."""
EXPIRY: Final = Struct(">BQ")
"""1, time: before the stored value of one that expires."""
_SECTION_POINTER: Final = Struct(">III")
_INHERITED: Final = Struct(">QQQQQ")
_U64: Final = Struct(">Q")
_EPOCH_TAG: Final = tag(3, VARINT)
_HOLDER_TAG: Final = tag(4, LENGTH_DELIMITED)
_EXPIRES_TAG: Final = tag(5, VARINT)
_FORK_ID_TAG: Final = tag(2, LENGTH_DELIMITED)
_PARENT_ID_TAG: Final = tag(3, LENGTH_DELIMITED)
_AT_TS_TAG: Final = tag(4, VARINT)
_FORK_TS_TAG: Final = tag(6, VARINT)
_END: Final = b"\x01"
_SWEPT: Final = b"\x01s"
_EXPIRY_OF_ALL: Final = b"\x01x"
_EXPIRY_COLUMN: Final = b"x"
_U64_MAX: Final = 2**64 - 1


class RecordSection(NamedTuple):
    """What a record does to one agent."""

    agent: AgentId
    prefix: bytes
    """Of the agent's rows."""
    content: bytes
    offset: int
    """Of its first byte, in its segment."""
    operations: list[SectionOperation]
    committed_at_ns: int
    """0 where none of the operations has a TTL: it stands behind all of them."""


_prefix: Final = lru_cache(maxsize=4_096)(keys.agent_prefix)


def read_record(record: LogRecordAt) -> tuple[str, list[RecordSection], Notes]:
    """The transaction's id, the sections of the agents that it touched, and its notes.

    Raises WireError for a record that no transaction makes.
    """
    payload = record.payload
    txn_id: str | None = None
    found: list[RecordSection] = []
    for first, last in sections_of(payload):
        content = payload[first:last]
        agent, section_txn_id, stamped_ts, operations = walk_section(content)
        if stamped_ts != record.commit_ts:
            raise WireError(f"a section says commit_ts {stamped_ts}")
        if txn_id is not None and section_txn_id != txn_id:
            raise WireError(f"its sections are of two transactions, {txn_id!r} and {section_txn_id!r}")
        txn_id = section_txn_id
        if agent.agent_id:
            time_ns = committed_at_ns(content) if any(each.ttl_s for each in operations) else 0
            offset = record.placement.offset + first
            found.append(RecordSection(agent, _prefix(agent), content, offset, operations, time_ns))
        elif operations:
            raise WireError("a section has operations and no agent")
    if not txn_id:
        raise WireError("no transaction id")
    return txn_id, found, read_notes(payload)


def section_rows(section: RecordSection, commit_ts: int) -> list[Row]:
    """The event, as `compared_event` makes it of the row, the versions, and what tells when they expire."""
    agent_prefix, content, offset = section.prefix, section.content, section.offset
    event = _SECTION_POINTER.pack(offset, len(content), crc32(content))
    rows = [(keys.event_key(agent_prefix, commit_ts), event)]
    rows += [
        (keys.version_key(agent_prefix, each.key, each.version), _version(section, each, commit_ts))
        for each in section.operations
    ]
    for each in section.operations:
        if each.ttl_s and each.value_offset is not None:
            at = _U64.pack(_expires_at_ns(section, each))
            what = keys.name(each.key) + _U64.pack(each.version)
            rows.append((_EXPIRY_OF_ALL + at + agent_prefix[1:] + what, _U64.pack(commit_ts)))
            rows.append((agent_prefix + _EXPIRY_COLUMN + at + what, _U64.pack(commit_ts)))
    return rows


def _version(section: RecordSection, operation: SectionOperation, commit_ts: int) -> bytes:
    _, version, value_offset, length, _ = operation
    if value_offset is None:
        return inline_value(None, version, commit_ts)
    value = section.content[value_offset : value_offset + length]
    stored = POINTER.pack(0, commit_ts, version, section.offset + value_offset, length, crc32(value))
    return _expiring(section, operation, stored)


def _expiring(section: RecordSection, operation: SectionOperation, stored: bytes) -> bytes:
    """The stored value of an operation, which may have a TTL."""
    if not operation.ttl_s:
        return stored
    return EXPIRY.pack(1, _expires_at_ns(section, operation)) + stored


def _expires_at_ns(section: RecordSection, operation: SectionOperation) -> int:
    return min(section.committed_at_ns + operation.ttl_s * 1_000_000_000, _U64_MAX)


def state_row(section: RecordSection, operation: SectionOperation, commit_ts: int) -> bytes:
    """The state that an operation leaves its key in."""
    _, version, value_offset, length, _ = operation
    if value_offset is not None and length <= VALUE_INLINE_BYTES:
        stored = inline_value(section.content[value_offset : value_offset + length], version, commit_ts)
        return _expiring(section, operation, stored)
    return _version(section, operation, commit_ts)


def note_rows(notes: Notes, sections: Sequence[RecordSection], record: LogRecordAt) -> list[Row]:
    """What a commit notes: its idempotency key with each agent that it wrote to, the lease that it changed, the fork
    that it made (as `compared_fork` makes it of the row) and of what, the agent that it ended, and how far was swept.
    """
    rows: list[Row] = []
    commit_ts = record.commit_ts
    behind = _U64.pack(commit_ts)
    if notes.idempotency is not None:
        column = keys.IDEMPOTENCY + keys.name(notes.idempotency.key)
        for section in sections:
            value = _U64.pack(committed_at_ns(section.content)) + notes.idempotency.fingerprint
            rows.append((section.prefix + column + behind, value))
    if notes.lease is not None:
        rows.append((_prefix(notes.lease.agent) + keys.LEASE + behind, _lease(notes.lease)))
    if notes.fork is not None:
        fork = notes.fork
        at = _AT_TS_TAG + varint(fork.at_ts)
        row = _PARENT_ID_TAG + _text(fork.parent.agent_id) + at + _FORK_TS_TAG + varint(commit_ts)
        rows.append((_prefix(fork.agent) + keys.FORK, compared_fork(row, fork.inherited)))
        rows.append((_prefix(fork.parent) + keys.CHILD + behind, _FORK_ID_TAG + _text(fork.agent.agent_id) + at))
        first, last = sections_of(record.payload)[0]
        at = _U64.pack(min(committed_at_ns(record.payload[first:last]) + 1, _U64_MAX))
        rows.append((_EXPIRY_OF_ALL + at + _prefix(fork.agent)[1:], behind))
    if notes.end is not None:
        rows.append((_prefix(notes.end) + keys.END + behind, _END))
    if notes.swept_until_ns is not None:
        rows.append((_SWEPT + behind, _U64.pack(notes.swept_until_ns)))
    return rows


def compared_event(stored: bytes) -> bytes:
    """What of an event row is compared with the log: the section pointer; of a row that is none, nothing."""
    return stored[: _SECTION_POINTER.size] if len(stored) == EVENT.size else b""


def compared_fork(stored: bytes, inherited: tuple[int, int, int, int, int]) -> bytes:
    """What is compared of a fork row: it, and the counters that the fork has inherited."""
    return stored + _INHERITED.pack(*inherited)


def fork_row_of(compared: bytes) -> bytes:
    """The fork row in what is compared of it."""
    return compared[: -_INHERITED.size]


def _text(text: str) -> bytes:
    encoded = text.encode()
    return varint(len(encoded)) + encoded


def _lease(lease: LeaseChange) -> bytes:
    """A LeaseChange that names no agent; what is empty or zero is left out."""
    fields = _EPOCH_TAG + varint(lease.epoch)
    if lease.holder:
        fields += _HOLDER_TAG + _text(lease.holder)
    if lease.expires_at_ns:
        fields += _EXPIRES_TAG + varint(lease.expires_at_ns)
    return fields


def outcome_row(txn_id: str, commit_ts: int) -> Row:
    """The outcome of the transaction."""
    return keys.outcome_key(keys.outcome_bucket(commit_ts), txn_id), _U64.pack(commit_ts)
