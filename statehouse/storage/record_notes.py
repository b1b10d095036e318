"""Notes: what a commit says besides its sections, in its record of the log and in the rows of the view.

A record is a `LogRecord`; its sections (`section.py`) come first, then its notes, which most records do not have:

    idempotency (2)     the key under which the client asked, and the fingerprint of what it asked for
    lease (3)           the lease of an agent, as it is after this commit
    fork (4)            the new agent, its parent, and what it inherits
    end (5)             the agent that is deleted
    swept_until_ns (6)  a time: every value that expired up to it was deleted in earlier commits

What each leaves in the view is for `note_rows.py` to say. `read_notes` raises `WireError` for notes
that no commit of this version makes. All of it is pure. docs/formats.md has the grammar and worked examples.
"""

from typing import Final, NamedTuple

from attrs import field, frozen
from google.protobuf.message import DecodeError

from statehouse.storage.v1 import log_pb2
from statehouse.storage.wire import LENGTH_DELIMITED, VARINT, WireError, fields, length_delimited, tag, varint
from statehouse.types import AgentId

__all__ = [
    "FINGERPRINT_BYTES",
    "NO_NOTES",
    "ForkNote",
    "Idempotency",
    "Inherited",
    "LeaseChange",
    "Notes",
    "encode_notes",
    "read_notes",
]

FINGERPRINT_BYTES: Final = 32
"""Of SHA-256."""

# Field numbers of LogRecord and Idempotency in proto/.
_SECTIONS: Final = 1
_IDEMPOTENCY: Final = 2
_LEASE: Final = 3
_FORK: Final = 4
_END: Final = 5
_SWEPT: Final = 6
_NOTES: Final = {
    _IDEMPOTENCY: LENGTH_DELIMITED,
    _LEASE: LENGTH_DELIMITED,
    _FORK: LENGTH_DELIMITED,
    _END: LENGTH_DELIMITED,
    _SWEPT: VARINT,
}
_KEY: Final = 1
_FINGERPRINT: Final = 2

_SECTIONS_BYTE: Final = tag(_SECTIONS, LENGTH_DELIMITED)[0]


@frozen
class Idempotency:
    """By what a repeated request is known."""

    key: bytes
    """UTF-8, not empty."""
    fingerprint: bytes = field()
    """FINGERPRINT_BYTES; ValueError for another length."""

    @fingerprint.validator
    def _check(self, _: object, fingerprint: bytes) -> None:
        if len(fingerprint) != FINGERPRINT_BYTES:
            raise ValueError(f"a fingerprint of {len(fingerprint)} bytes")


@frozen
class LeaseChange:
    """A lease after it was acquired, renewed or released."""

    agent: AgentId
    epoch: int
    """From 1."""
    holder: str
    expires_at_ns: int
    """Since 1970; 0: it was released."""


class Inherited(NamedTuple):
    """What the view knows of an agent (AgentMeta) when it is forked: as of the point of the parent."""

    first_commit_ts: int
    last_commit_ts: int
    commits: int
    operations: int
    live_keys: int


@frozen
class ForkNote:
    """A new agent that has what its parent, of the same namespace, had at a point."""

    agent: AgentId
    parent: AgentId
    at_ts: int
    inherited: Inherited


@frozen
class Notes:
    """What one commit notes."""

    idempotency: Idempotency | None = None
    lease: LeaseChange | None = None
    fork: ForkNote | None = None
    end: AgentId | None = None
    """The agent that is deleted."""
    swept_until_ns: int | None = None
    """Every value that expired up to this time, since 1970, was deleted before, or needs not be."""


NO_NOTES: Final = Notes()


def encode_notes(notes: Notes) -> bytes:
    """The notes as fields of a LogRecord, which stand behind its sections."""
    encoded = b""
    if notes.idempotency is not None:
        note = length_delimited(_KEY, notes.idempotency.key)
        note += length_delimited(_FINGERPRINT, notes.idempotency.fingerprint)
        encoded = length_delimited(_IDEMPOTENCY, note)
    if notes.lease is not None:
        lease = notes.lease
        change = log_pb2.LeaseChange(
            namespace=lease.agent.namespace,
            agent_id=lease.agent.agent_id,
            epoch=lease.epoch,
            holder=lease.holder,
            expires_at_ns=lease.expires_at_ns,
        )
        encoded += length_delimited(_LEASE, change.SerializeToString())
    if notes.fork is not None:
        fork = log_pb2.Fork(
            namespace=notes.fork.agent.namespace,
            agent_id=notes.fork.agent.agent_id,
            parent_id=notes.fork.parent.agent_id,
            at_ts=notes.fork.at_ts,
            inherited=log_pb2.AgentMeta(**notes.fork.inherited._asdict()),
        )
        encoded += length_delimited(_FORK, fork.SerializeToString())
    if notes.end is not None:
        end = log_pb2.AgentEnd(namespace=notes.end.namespace, agent_id=notes.end.agent_id)
        encoded += length_delimited(_END, end.SerializeToString())
    if notes.swept_until_ns is not None:
        encoded += tag(_SWEPT, VARINT) + varint(notes.swept_until_ns)
    return encoded


def read_notes(payload: bytes) -> Notes:
    """The notes of a record. Raises `WireError`."""
    if _is_one_section(payload):
        return NO_NOTES
    idempotency: Idempotency | None = None
    lease: LeaseChange | None = None
    fork: ForkNote | None = None
    end: AgentId | None = None
    swept_until_ns: int | None = None
    seen: set[int] = set()
    for number, wire_type, first, last in fields(payload, 0, len(payload)):
        if number == _SECTIONS:
            continue
        if _NOTES.get(number) != wire_type:
            # To pass over it would be to lose what it says: a fork without its note is an agent without a past.
            raise WireError(f"it says something that this version does not know (field {number}): it is a newer one's")
        if number in seen:
            raise WireError(f"two notes of one kind in one record: {number}")
        seen.add(number)
        if number == _IDEMPOTENCY:
            idempotency = _read_idempotency(payload[first:last])
        elif number == _LEASE:
            lease = _read_lease(payload[first:last])
        elif number == _FORK:
            fork = _read_fork(payload[first:last])
        elif number == _END:
            end = _read_end(payload[first:last])
        else:
            swept_until_ns = first
    return Notes(idempotency, lease, fork, end, swept_until_ns) if seen else NO_NOTES


def _is_one_section(payload: bytes) -> bool:
    """Whether there is one section of less than 16 KiB and nothing else, as in most of the records.

    Rebuilding the view and verifying it ask for the notes of every record: a walk over its fields would be felt.
    """
    size = len(payload)
    if size < 3 or payload[0] != _SECTIONS_BYTE:
        return False
    if (length := payload[1]) < 0x80:
        return size == 2 + length
    return payload[2] < 0x80 and size == 3 + (length & 0x7F | payload[2] << 7)


def _read_idempotency(note: bytes) -> Idempotency:
    try:
        read = log_pb2.Idempotency.FromString(note)
    except DecodeError as error:
        raise WireError("not the note of an idempotency key") from error
    if not read.key or len(read.fingerprint) != FINGERPRINT_BYTES:
        raise WireError("the note of an idempotency key has no key, or a fingerprint of another length")
    return Idempotency(read.key.encode(), read.fingerprint)


def _read_lease(note: bytes) -> LeaseChange:
    try:
        read = log_pb2.LeaseChange.FromString(note)
    except DecodeError as error:
        raise WireError("not the note of a lease") from error
    if not read.agent_id or not read.epoch:
        raise WireError("the note of a lease has no agent or no epoch")
    return LeaseChange(AgentId(read.namespace, read.agent_id), read.epoch, read.holder, read.expires_at_ns)


def _read_fork(note: bytes) -> ForkNote:
    try:
        read = log_pb2.Fork.FromString(note)
    except DecodeError as error:
        raise WireError("not the note of a fork") from error
    inherited = read.inherited
    if not read.agent_id or not read.parent_id or not read.at_ts or not inherited.commits:
        raise WireError("the note of a fork has no agent, no parent or no point, or inherits nothing")
    return ForkNote(
        AgentId(read.namespace, read.agent_id),
        AgentId(read.namespace, read.parent_id),
        read.at_ts,
        Inherited(
            inherited.first_commit_ts,
            inherited.last_commit_ts,
            inherited.commits,
            inherited.operations,
            inherited.live_keys,
        ),
    )


def _read_end(note: bytes) -> AgentId:
    try:
        read = log_pb2.AgentEnd.FromString(note)
    except DecodeError as error:
        raise WireError("not the note of an agent's end") from error
    if not read.agent_id:
        raise WireError("the note of an agent's end has no agent")
    return AgentId(read.namespace, read.agent_id)
