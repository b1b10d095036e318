"""Sections: what one transaction did to one agent, as the bytes that the log keeps and that replay sends.

A section is a `statehouse.v1.ReplayEvent`, encoded in two halves that are joined by concatenation:

    operations (3)* | namespace (100) | agent_id (101) | txn_id (1) | metadata (103)*   by the partition: `section_body`
    commit_ts (2) | committed_at (102)                                                  by the sequencer: `stamp`

A record of the log is a `LogRecord`: its sections, one after the other (`record_of`, `sections_of`), and what the
commit noted besides (`record_notes.py`). A transaction that touched no agent has one section with neither operations
nor names.

Reading gives offsets, not values: the view points at a value's bytes in the log, and a `Struct` is never
decoded on its way through storage. Writing and reading give the same `SectionOperation`s, so that a
commit and its recovery can share everything that follows. Fields that a later version adds are stepped over.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Final, NamedTuple

from statehouse.storage.wire import (
    LENGTH_DELIMITED,
    VARINT,
    WireError,
    fields,
    length_delimited,
    read_short,
    tag,
    timestamp,
    varint,
)
from statehouse.types import AgentId

# Field numbers of ReplayEvent, Operation, Timestamp and LogRecord in proto/.
_TXN_ID: Final = 1
_COMMIT_TS: Final = 2
_OPERATIONS: Final = 3
_NAMESPACE: Final = 100
_AGENT_ID: Final = 101
_COMMITTED_AT: Final = 102
_METADATA: Final = 103

_KEY: Final = 1
_VALUE: Final = 2
_VERSION: Final = 3
_TTL: Final = 100
_EXPIRED: Final = 101

_NAME: Final = 1
_TEXT: Final = 2

_OPERATIONS_TAG: Final = tag(_OPERATIONS, LENGTH_DELIMITED)
_KEY_TAG: Final = tag(_KEY, LENGTH_DELIMITED)
_VALUE_TAG: Final = tag(_VALUE, LENGTH_DELIMITED)
_VERSION_TAG: Final = tag(_VERSION, VARINT)
_TTL_TAG: Final = tag(_TTL, VARINT)
_EXPIRED_FIELD: Final = tag(_EXPIRED, VARINT) + varint(1)
_OPERATIONS_BYTE: Final = _OPERATIONS_TAG[0]
_KEY_BYTE: Final = _KEY_TAG[0]
_VALUE_BYTE: Final = _VALUE_TAG[0]
_VERSION_BYTE: Final = _VERSION_TAG[0]
_COMMIT_TS_TAG: Final = tag(_COMMIT_TS, VARINT)

_SECTION_TAG: Final = tag(1, LENGTH_DELIMITED)
FOR_GOOD: Final[Mapping[int, int]] = MappingProxyType({})
"""The TTLs of operations of which none has one."""


# Named tuples rather than attrs classes: recovery makes one of each for every event, and they cost a third.


class SectionOperation(NamedTuple):
    """One write or delete within a section."""

    key: bytes
    version: int
    value_offset: int | None
    """Where the bytes of the value (a serialized Struct) begin; None: the key was deleted."""
    value_length: int
    ttl_s: int = 0
    """So many seconds after its commit the value expires; 0: never."""


class Section(NamedTuple):
    """One section, as read."""

    agent: AgentId
    """Both names are empty in the section of a transaction that touched no agent."""
    txn_id: str
    commit_ts: int
    operations: list[SectionOperation]


class SectionBody(NamedTuple):
    """The partition's half of a section; value offsets count from its first byte."""

    encoded: bytes
    operations: list[SectionOperation]


# Writing


def encode_operation(key: bytes, value: bytes | None, version: int, ttl_s: int = 0, *, expired: bool = False) -> bytes:
    """One operation, as a field of its section. `value` is a serialized Struct, None for a delete.

    `expired`: what is deleted had expired.
    """
    operation = _KEY_TAG + varint(len(key)) + key
    if value is not None:
        operation += _VALUE_TAG + varint(len(value)) + value
    operation += _VERSION_TAG + varint(version)
    if ttl_s:
        operation += _TTL_TAG + varint(ttl_s)
    if expired:
        operation += _EXPIRED_FIELD
    return _OPERATIONS_TAG + varint(len(operation)) + operation


def agent_fields(agent: AgentId) -> bytes:
    """The names of a section's agent: the same for all its sections, so a partition encodes them once."""
    return length_delimited(_NAMESPACE, agent.namespace.encode()) + length_delimited(_AGENT_ID, agent.agent_id.encode())


def metadata_fields(metadata: Mapping[str, str]) -> bytes:
    """What the client said of a commit, as fields of its sections: the same for all of them, so it is encoded once."""
    return b"".join(length_delimited(_METADATA, metadata_entry(*entry)) for entry in sorted(metadata.items()))


def metadata_entry(name: str, value: str) -> bytes:
    """The one form in which a section has an entry of the metadata: an entry of a protobuf map."""
    return length_delimited(_NAME, name.encode()) + length_delimited(_TEXT, value.encode())


def section_body(
    agent: bytes,
    txn_id: str,
    operations: Sequence[tuple[bytes, bytes | None, int]],
    metadata: bytes = b"",
    ttls_s: Mapping[int, int] = FOR_GOOD,
    *,
    expired: bool = False,
) -> SectionBody:
    """The partition's half of a section.

    `agent` is what `agent_fields` gave (empty for a transaction without operations), `operations` are (key,
    serialized Struct or None, version) in the order in which they were staged, `metadata` what `metadata_fields` gave.
    `ttls_s` has the TTLs of those operations that have one, by their place; `expired`: what they delete had expired.
    """
    pieces: list[bytes] = []
    placed: list[SectionOperation] = []
    size = 0
    encode = partial(encode_operation, expired=True) if expired else encode_operation
    has_ttls = bool(ttls_s)
    for key, value, version in operations:
        ttl_s = ttls_s.get(len(placed), 0) if has_ttls else 0
        piece = encode(key, value, version, ttl_s)
        pieces.append(piece)
        size += len(piece)
        if value is None:
            placed.append(SectionOperation(key, version, None, 0))
        else:
            # The version, and the TTL, stand between the value and the operation's end.
            behind = 2 if version < 0x80 else 1 + len(varint(version))
            behind += len(_TTL_TAG + varint(ttl_s)) if ttl_s else 0
            placed.append(SectionOperation(key, version, size - behind - len(value), len(value), ttl_s))
    pieces.append(agent)
    pieces.append(length_delimited(_TXN_ID, txn_id.encode()))
    pieces.append(metadata)
    return SectionBody(b"".join(pieces), placed)


def stamp(commit_ts: int, committed_at_ns: int) -> bytes:
    """The sequencer's half of every section of one commit; the time is nanoseconds since 1970, in UTC."""
    return _COMMIT_TS_TAG + varint(commit_ts) + _committed_at(committed_at_ns)


@lru_cache(maxsize=1)  # a group of commits has one time
def _committed_at(time_ns: int) -> bytes:
    return length_delimited(_COMMITTED_AT, timestamp(time_ns))


def record_of(sections: Sequence[bytes]) -> tuple[bytes, list[int]]:
    """The payload of a log record, and for each section the offset of its first byte in that payload."""
    pieces: list[bytes] = []
    offsets: list[int] = []
    size = 0
    for section in sections:
        head = _SECTION_TAG + varint(len(section))
        size += len(head)
        offsets.append(size)
        size += len(section)
        pieces += (head, section)
    return b"".join(pieces), offsets


# Reading


def sections_of(payload: bytes) -> list[tuple[int, int]]:
    """Where each section of a log record begins and ends in its payload. Raises `WireError`."""
    return [
        (first, last)
        for number, wire_type, first, last in fields(payload, 0, len(payload))
        if number == 1 and wire_type == LENGTH_DELIMITED
    ]


def walk_section(section: bytes, base: int = 0) -> Section:
    """Read a section. `base` is added to every value offset: the section's own place, or nothing.

    Raises `WireError` when the bytes are not a section.
    """
    namespace = agent_id = txn_id = ""
    commit_ts = 0
    operations: list[SectionOperation] = []
    try:
        rest = _walk_operations(section, base, operations)
        for number, wire_type, first, last in fields(section, rest, len(section)):
            if wire_type == LENGTH_DELIMITED:
                if number == _OPERATIONS:
                    operations.append(_walk_operation(section, first, last, base))
                elif number == _NAMESPACE:
                    namespace = section[first:last].decode()
                elif number == _AGENT_ID:
                    agent_id = section[first:last].decode()
                elif number == _TXN_ID:
                    txn_id = section[first:last].decode()
            elif number == _COMMIT_TS and wire_type == VARINT:
                commit_ts = first
    except UnicodeDecodeError as error:
        raise WireError("a name in a section that is not UTF-8") from error
    return Section(AgentId(namespace, agent_id), txn_id, commit_ts, operations)


def _walk_operations(section: bytes, base: int, operations: list[SectionOperation]) -> int:
    """Read the operations that `section_body` put first, in the form that it gives them; the offset behind them.

    Stops, without an error, at the first byte that is anything else: `fields` reads every form, and takes twice as
    long, which a rebuild of the view would feel.
    """
    position = 0
    try:
        while section[position] == _OPERATIONS_BYTE:
            length, first = read_short(section, position + 1)
            end = first + length
            if section[first] != _KEY_BYTE:
                break
            key_length, first = read_short(section, first + 1)
            here = first + key_length
            key = section[first:here]
            value_offset: int | None = None
            value_length = 0
            if section[here] == _VALUE_BYTE:
                value_length, value_offset = read_short(section, here + 1)
                here = value_offset + value_length
                value_offset += base
            if section[here] != _VERSION_BYTE:
                break
            version, here = read_short(section, here + 1)
            ttl_s = 0
            if here != end:
                if section.startswith(_TTL_TAG, here):
                    ttl_s, here = read_short(section, here + len(_TTL_TAG))
                elif section.startswith(_EXPIRED_FIELD, here):
                    here += len(_EXPIRED_FIELD)
                if here != end:
                    break
            operations.append(SectionOperation(key, version, value_offset, value_length, ttl_s))
            position = end
    except IndexError:
        pass  # the section ends within an operation: `fields` says how
    return position


def _walk_operation(section: bytes, start: int, end: int, base: int) -> SectionOperation:
    key = b""
    version = 0
    value_offset: int | None = None
    value_length = ttl_s = 0
    for number, wire_type, first, last in fields(section, start, end):
        if wire_type == LENGTH_DELIMITED:
            if number == _KEY:
                key = section[first:last]
            elif number == _VALUE:
                value_offset, value_length = base + first, last - first
        elif number == _VERSION and wire_type == VARINT:
            version = first
        elif number == _TTL and wire_type == VARINT:
            ttl_s = first
    return SectionOperation(key, version, value_offset, value_length, ttl_s)
