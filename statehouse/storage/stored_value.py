"""What the view keeps under a key: values inline or as pointers into the log, and pointers to events.

A stored value (columns `s` and `v`) is one of

    the bytes of GetStateResponse: value (1), version (2), commit_ts (3), exists (4), in this order,
    what is zero left out, so that a tombstone is version and commit_ts alone; a read sends them as they are
    0x00 | commit_ts u64 | version u64 | offset u32 | length u32 | crc32 u32: the value stands in the log, in
    the segment that holds commit_ts; the checksum is of the Struct's bytes
    0x01 | expires_at_ns u64 | one of the others, but no tombstone: a live value that expires then

and the first byte tells which: 0x0A a live value, 0x10 a tombstone, 0x00 a pointer, which is always live. What has
expired is live until its tombstone is written: only who reads what there is now takes it for absent (`as_of`). A
section pointer is offset u32 | length u32 | crc32 u32; an event row (column `e`), whose key has the commit_ts, is a
section pointer and what the agent's counters were then: commits u64 | operations u64 | live keys u64. So what an agent
had at a point is known without counting.

Everything is pure and raises `ViewDamagedError` for bytes that nothing here wrote.
"""

from collections.abc import Callable, Iterable, Sequence
from struct import Struct
from struct import error as StructError  # noqa: N812 - it is an exception, and named like one
from typing import Final, NamedTuple, TypeAlias

from statehouse.storage.view import ViewDamagedError
from statehouse.storage.wire import (
    LENGTH_DELIMITED,
    VARINT,
    WireError,
    length_delimited,
    read_varint,
    tag,
    timestamp,
    varint,
)

_POINTER: Final = 0x00
_EXPIRING: Final = 0x01
_NEEDS_WORK: Final = b"\x01"
"""What begins with a greater byte is an answer as it stands."""
_LIVE: Final = tag(1, LENGTH_DELIMITED)[0]
_TOMBSTONE: Final = tag(2, VARINT)[0]

# GetStateResponse and GetStateAtVersionResponse, alike
_VALUE_TAG: Final = tag(1, LENGTH_DELIMITED)
_VERSION_TAG: Final = tag(2, VARINT)
_COMMIT_TS_TAG: Final = tag(3, VARINT)
_EXISTS: Final = tag(4, VARINT) + varint(1)
# and in StateEntry, BatchGetEntry and HistoryEntry
_EXPIRES_AT: Final = 100

# StateEntry
_ENTRY_KEY_TAG: Final = tag(1, LENGTH_DELIMITED)
_ENTRY_VALUE_TAG: Final = tag(2, LENGTH_DELIMITED)
_ENTRY_VERSION_TAG: Final = tag(3, VARINT)
_ENTRY_COMMIT_TS_TAG: Final = tag(4, VARINT)

_POINTER_FIELDS: Final = Struct(">BQQIII")
_EVENT: Final = Struct(">III QQQ")
_EVENT_COUNTS: Final = Struct(">12x QQQ")
_SECTION_READ: Final = Struct(">QIII 24x")
_COMMIT_TS: Final = Struct(">Q")
_EXPIRY: Final = Struct(">BQ")
_TIME_MOST_NS: Final = 2**64 - 1
_NS_PER_S: Final = 1_000_000_000


# A named tuple, because a partition's scan makes one for every row.
class ValuePointer(NamedTuple):
    """Where in the log a live value stands. `crc` is the zlib crc32 of its bytes."""

    commit_ts: int
    version: int
    offset: int
    """Bytes from the beginning of the segment that holds `commit_ts`."""
    length: int
    crc: int

    def pack(self) -> bytes:
        return _POINTER_FIELDS.pack(_POINTER, *self)

    @classmethod
    def unpack(cls, stored: bytes) -> "ValuePointer":
        """Raises `ViewDamagedError` when `stored` is not a pointer."""
        if len(stored) != _POINTER_FIELDS.size or stored[0] != _POINTER:
            raise ViewDamagedError(f"not a pointer to a value: {stored[:40].hex()}")
        return cls._make(_POINTER_FIELDS.unpack(stored)[1:])


Fetch: TypeAlias = Callable[[ValuePointer], bytes]
"""Reads a value from the log and checks it; what it raises passes."""
ReadMany: TypeAlias = Callable[[Sequence[tuple[int, int, int, int]]], list[bytes]]
"""Reads many parts of the log, each (commit_ts, offset, length, crc32), likewise; quick when they ascend."""


# Values


def inline_value(value: bytes | None, version: int, commit_ts: int) -> bytes:
    """A stored value that needs no log: `value` is a serialized Struct, None for a tombstone."""
    numbers = _VERSION_TAG + varint(version) + _COMMIT_TS_TAG + varint(commit_ts)
    if value is None:
        return numbers
    return b"".join((_VALUE_TAG, varint(len(value)), value, numbers, _EXISTS))


def expires_at_ns(committed_at_ns: int, ttl_s: int) -> int:
    """When a value that was committed then expires; in nanoseconds since 1970, as far as 64 bits go."""
    return min(committed_at_ns + ttl_s * _NS_PER_S, _TIME_MOST_NS)


def expiring(stored: bytes, at_ns: int) -> bytes:
    """The stored value of a live value that expires at a time."""
    return _EXPIRY.pack(_EXPIRING, at_ns) + stored


def expiry_of(stored: bytes) -> int:
    """When the value expires, in nanoseconds since 1970; 0: never."""
    if stored[:1] != b"\x01":
        return 0
    _unwrapped(stored)
    at_ns: int = _EXPIRY.unpack_from(stored)[1]
    return at_ns


def as_of(stored: bytes, now_ns: int) -> bytes:
    """What there is of a stored value at a time: once it has expired, a tombstone of its version and commit."""
    if stored[:1] != b"\x01" or expiry_of(stored) > now_ns:
        return stored
    return inline_value(None, *place_of(stored))


def is_answer(stored: bytes) -> bool:
    """Whether the bytes are an answer at any time, without the log; the others are for `as_of` and `response`."""
    return stored[:1] > _NEEDS_WORK


def is_in_log(stored: bytes) -> bool:
    """Whether the value stands in the log, so that its answer takes a read there."""
    return (_unwrapped(stored) if stored[:1] == b"\x01" else stored)[:1] == b"\x00"


def response(stored: bytes, fetch: Fetch) -> bytes:
    """The encoded GetStateResponse (GetStateAtVersionResponse is the same) of a stored value.

    Reads the log, in the calling thread, when the value stands there.
    """
    if is_answer(stored):
        return stored
    if stored[:1] == b"\x01":
        return response(_unwrapped(stored), fetch) + _expiry_field(stored)
    pointer = ValuePointer.unpack(stored)
    return inline_value(fetch(pointer), pointer.version, pointer.commit_ts)


def _unwrapped(stored: bytes) -> bytes:
    """The stored value in one that expires."""
    inner = stored[_EXPIRY.size :]
    if not inner or inner[0] not in (_LIVE, _POINTER):
        raise ViewDamagedError(f"not a stored value: {stored[:40].hex()}")
    return inner


def _expiry_field(stored: bytes) -> bytes:
    """What the answer of a value that expires has behind the others."""
    return length_delimited(_EXPIRES_AT, timestamp(_EXPIRY.unpack_from(stored)[1]))


def responses(stored: Sequence[bytes | None], read_many: ReadMany) -> list[bytes]:
    """The encoded GetStateResponse of each stored value, empty for None; those in the log are read together."""
    answers: list[bytes] = []
    pointers: list[tuple[ValuePointer, int]] = []
    for place, each in enumerate(stored):
        expiry = b""
        if each is not None and each[:1] == b"\x01":
            expiry, each = _expiry_field(each), _unwrapped(each)  # noqa: PLW2901
        if each is not None and each[:1] == b"\x00":
            pointers.append((ValuePointer.unpack(each), place))
            answers.append(expiry)
        else:
            answers.append((each or b"") + expiry)
    pointers.sort(key=_place_in_the_log)
    wanted = [(pointer.commit_ts, pointer.offset, pointer.length, pointer.crc) for pointer, _ in pointers]
    for (pointer, place), value in zip(pointers, read_many(wanted), strict=True):
        answers[place] = inline_value(value, pointer.version, pointer.commit_ts) + answers[place]
    return answers


def _place_in_the_log(pointer: tuple[ValuePointer, int]) -> tuple[int, int]:
    return pointer[0].commit_ts, pointer[0].offset


def entry(key: bytes, stored: bytes, fetch: Fetch, now_ns: int = 0) -> bytes | None:
    """The encoded StateEntry of a value, None when nothing `shows` at the time; reads the log as `response` does."""
    return entry_of(key, response(stored, fetch)) if shows(stored, now_ns) else None


def entry_of(key: bytes, answer: bytes) -> bytes:
    """The encoded StateEntry of a key whose GetStateResponse is that of a live value."""
    first, last = _value_bounds(answer)
    value = answer[first:last]
    version, commit_ts, behind = _numbers(answer, last)
    return b"".join((
        _ENTRY_KEY_TAG, varint(len(key)), key,
        _ENTRY_VALUE_TAG, varint(len(value)), value,
        _ENTRY_VERSION_TAG, varint(version),
        _ENTRY_COMMIT_TS_TAG, varint(commit_ts),
        answer[behind + len(_EXISTS) :],
    ))  # fmt: skip


def exists_of(stored: bytes) -> bool:
    """Whether the value is live, also one that has expired; false for a tombstone."""
    return _kind(stored) != _TOMBSTONE


def shows(stored: bytes, now_ns: int) -> bool:
    """Whether there is a value at a time: one that is live and has not expired. At 0 nothing has."""
    if stored[:1] == b"\x0a":  # as nearly all
        return True
    kind = _kind(stored)
    return kind != _TOMBSTONE and (kind != _EXPIRING or expiry_of(stored) > now_ns)


def version_of(stored: bytes) -> int:
    """The version of a live value or tombstone. A partition asks for each write, so it reads only what it must."""
    try:
        kind = stored[0]
        if kind == _POINTER:
            return ValuePointer.unpack(stored).version
        if kind == _EXPIRING:
            return version_of(_unwrapped(stored))
        # Nearly every tombstone, and every live value whose length is one byte, ends here.
        position = 1 if kind == _TOMBSTONE else _value_bounds(stored)[1] + 1
        version = stored[position]
    except IndexError:
        raise ViewDamagedError(f"not a stored value: {stored[:40].hex()}") from None
    if version < 0x80 and kind in (_LIVE, _TOMBSTONE) and stored[position - 1] == _TOMBSTONE:
        return version
    return _numbers(stored, position - 1)[0]


def place_of(stored: bytes) -> tuple[int, int]:
    """The version and the commit_ts of a live value or tombstone."""
    kind = _kind(stored)
    if kind == _POINTER:
        pointer = ValuePointer.unpack(stored)
        return pointer.version, pointer.commit_ts
    if kind == _EXPIRING:
        return place_of(_unwrapped(stored))
    version, commit_ts, _ = _numbers(stored, 0 if kind == _TOMBSTONE else _value_bounds(stored)[1])
    return version, commit_ts


def answer_bytes(stored: bytes) -> int:
    """About how many bytes the value takes in an answer."""
    if is_answer(stored):
        return len(stored)
    if stored[:1] == b"\x01":
        return _EXPIRY.size + answer_bytes(_unwrapped(stored))
    return len(stored) + ValuePointer.unpack(stored).length


def _kind(stored: bytes) -> int:
    kind = stored[0] if stored else -1
    if kind not in (_LIVE, _TOMBSTONE, _POINTER, _EXPIRING):
        raise ViewDamagedError(f"not a stored value: {stored[:40].hex()}")
    return kind


def _value_bounds(stored: bytes) -> tuple[int, int]:
    """Where the Struct of an inline live value begins and ends."""
    if len(stored) > 1 and (length := stored[1]) < 0x80:
        return 2, 2 + length
    length, first = _read(stored, 1)
    return first, first + length


def _numbers(stored: bytes, start: int) -> tuple[int, int, int]:
    """Version and commit_ts of an inline value, which begin at `start`, and the offset behind them."""
    if stored[start : start + 1] != _VERSION_TAG:
        raise ViewDamagedError(f"a stored value without a version: {stored[:40].hex()}")
    version, position = _read(stored, start + 1)
    if stored[position : position + 1] != _COMMIT_TS_TAG:
        raise ViewDamagedError(f"a stored value without a commit_ts: {stored[:40].hex()}")
    return version, *_read(stored, position + 1)


def _read(stored: bytes, start: int) -> tuple[int, int]:
    try:
        return read_varint(stored, start)
    except WireError as error:
        raise ViewDamagedError(f"a stored value that is cut: {stored[:40].hex()}") from error


# Events


SECTION_POINTER_BYTES: Final = 12
"""An event row begins with a section pointer."""


def event_row(offset: int, length: int, crc: int, commits: int, operations: int, live_keys: int) -> bytes:
    """The value of an `e` row: where the section stands in its segment, its crc32, and the counters behind it."""
    return _EVENT.pack(offset, length, crc, commits, operations, live_keys)


def event_counts(stored: bytes) -> tuple[int, int, int]:
    """The agent's commits, operations and live keys, the event included."""
    if len(stored) != _EVENT.size:
        raise ViewDamagedError(f"not an event row: {stored[:40].hex()}")
    commits, operations, live_keys = _EVENT_COUNTS.unpack(stored)
    return commits, operations, live_keys


def section_reads(rows: Iterable[tuple[bytes, bytes]]) -> list[tuple[int, int, int, int]]:
    """Rows of an `e` column as (commit_ts, offset, length, crc32): what the log's reads take.

    Replay does this for every event, so a row is one unpacking: an event's key ends in its commit_ts.
    """
    unpack = _SECTION_READ.unpack
    try:
        return [unpack(key[-8:] + value) for key, value in rows]
    except StructError as error:
        raise ViewDamagedError("a row of an event column that is none") from error


# Outcomes


def outcome(commit_ts: int) -> bytes:
    """The value of a `t` row."""
    return _COMMIT_TS.pack(commit_ts)


def unpack_outcome(stored: bytes) -> int:
    """The commit_ts of a transaction that was committed."""
    if len(stored) != _COMMIT_TS.size:
        raise ViewDamagedError(f"not the outcome of a transaction: {stored[:40].hex()}")
    commit_ts: int = _COMMIT_TS.unpack(stored)[0]
    return commit_ts
