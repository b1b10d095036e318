"""What the view keeps under a key: values inline or as pointers into the log, and pointers to events.

A stored value (columns `s` and `v`) is one of

    the bytes of GetStateResponse: value (1), version (2), commit_ts (3), exists (4), in this order,
    what is zero left out, so that a tombstone is version and commit_ts alone; a read sends them as they are
    0x00 | commit_ts u64 | version u64 | offset u32 | length u32 | crc32 u32: the value stands in the log, in
    the segment that holds commit_ts; the checksum is of the Struct's bytes

and the first byte tells which: 0x0A a live value, 0x10 a tombstone, 0x00 a pointer, which is always live. A
section pointer (column `e`) is offset u32 | length u32 | crc32 u32; the commit_ts stands in its key.

Everything is pure and raises `ViewDamagedError` for bytes that nothing here wrote.
"""

from collections.abc import Callable, Iterable
from struct import Struct
from struct import error as StructError  # noqa: N812 - it is an exception, and named like one
from typing import Final, NamedTuple, TypeAlias

from statehouse.storage.view import ViewDamagedError
from statehouse.storage.wire import LENGTH_DELIMITED, VARINT, WireError, read_varint, tag, varint

_POINTER: Final = 0x00
_LIVE: Final = tag(1, LENGTH_DELIMITED)[0]
_TOMBSTONE: Final = tag(2, VARINT)[0]

# GetStateResponse and GetStateAtVersionResponse, alike
_VALUE_TAG: Final = tag(1, LENGTH_DELIMITED)
_VERSION_TAG: Final = tag(2, VARINT)
_COMMIT_TS_TAG: Final = tag(3, VARINT)
_EXISTS: Final = tag(4, VARINT) + varint(1)

# StateEntry
_ENTRY_KEY_TAG: Final = tag(1, LENGTH_DELIMITED)
_ENTRY_VALUE_TAG: Final = tag(2, LENGTH_DELIMITED)
_ENTRY_VERSION_TAG: Final = tag(3, VARINT)
_ENTRY_COMMIT_TS_TAG: Final = tag(4, VARINT)

_POINTER_FIELDS: Final = Struct(">BQQIII")
_SECTION_POINTER: Final = Struct(">III")
_SECTION_READ: Final = Struct(">QIII")
_COMMIT_TS: Final = Struct(">Q")


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


# Values


def inline_value(value: bytes | None, version: int, commit_ts: int) -> bytes:
    """A stored value that needs no log: `value` is a serialized Struct, None for a tombstone."""
    numbers = _VERSION_TAG + varint(version) + _COMMIT_TS_TAG + varint(commit_ts)
    if value is None:
        return numbers
    return b"".join((_VALUE_TAG, varint(len(value)), value, numbers, _EXISTS))


def response(stored: bytes, fetch: Fetch) -> bytes:
    """The encoded GetStateResponse (GetStateAtVersionResponse is the same) of a stored value.

    Reads the log, in the calling thread, when the value stands there.
    """
    if stored[:1] != b"\x00":
        return stored
    pointer = ValuePointer.unpack(stored)
    return inline_value(fetch(pointer), pointer.version, pointer.commit_ts)


def entry(key: bytes, stored: bytes, fetch: Fetch) -> bytes | None:
    """The encoded StateEntry of a live value, None for a tombstone; reads the log as `response` does."""
    kind = _kind(stored)
    if kind == _TOMBSTONE:
        return None
    if kind == _POINTER:
        pointer = ValuePointer.unpack(stored)
        value, version, commit_ts = fetch(pointer), pointer.version, pointer.commit_ts
    else:
        first, last = _value_bounds(stored)
        value = stored[first:last]
        version, commit_ts = _numbers(stored, last)
    return b"".join((
        _ENTRY_KEY_TAG, varint(len(key)), key,
        _ENTRY_VALUE_TAG, varint(len(value)), value,
        _ENTRY_VERSION_TAG, varint(version),
        _ENTRY_COMMIT_TS_TAG, varint(commit_ts),
    ))  # fmt: skip


def exists_of(stored: bytes) -> bool:
    """Whether the value is live; false for a tombstone."""
    return _kind(stored) != _TOMBSTONE


def version_of(stored: bytes) -> int:
    """The version of a live value or tombstone. A partition asks for each write, so it reads only what it must."""
    try:
        kind = stored[0]
        if kind == _POINTER:
            return ValuePointer.unpack(stored).version
        # Nearly every tombstone, and every live value whose length is one byte, ends here.
        position = 1 if kind == _TOMBSTONE else _value_bounds(stored)[1] + 1
        version = stored[position]
    except IndexError:
        raise ViewDamagedError(f"not a stored value: {stored[:40].hex()}") from None
    if version < 0x80 and kind in (_LIVE, _TOMBSTONE) and stored[position - 1] == _TOMBSTONE:
        return version
    return _numbers(stored, position - 1)[0]


def _kind(stored: bytes) -> int:
    kind = stored[0] if stored else -1
    if kind not in (_POINTER, _LIVE, _TOMBSTONE):
        raise ViewDamagedError(f"not a stored value: {stored[:40].hex()}")
    return kind


def _value_bounds(stored: bytes) -> tuple[int, int]:
    """Where the Struct of an inline live value begins and ends."""
    if len(stored) > 1 and (length := stored[1]) < 0x80:
        return 2, 2 + length
    length, first = _read(stored, 1)
    return first, first + length


def _numbers(stored: bytes, start: int) -> tuple[int, int]:
    """Version and commit_ts of an inline value, which begin at `start`."""
    if stored[start : start + 1] != _VERSION_TAG:
        raise ViewDamagedError(f"a stored value without a version: {stored[:40].hex()}")
    version, position = _read(stored, start + 1)
    if stored[position : position + 1] != _COMMIT_TS_TAG:
        raise ViewDamagedError(f"a stored value without a commit_ts: {stored[:40].hex()}")
    return version, _read(stored, position + 1)[0]


def _read(stored: bytes, start: int) -> tuple[int, int]:
    try:
        return read_varint(stored, start)
    except WireError as error:
        raise ViewDamagedError(f"a stored value that is cut: {stored[:40].hex()}") from error


# Events


def section_pointer(offset: int, length: int, crc: int) -> bytes:
    """The value of an `e` row: where the section stands in its segment, and the crc32 of its bytes."""
    return _SECTION_POINTER.pack(offset, length, crc)


def section_reads(rows: Iterable[tuple[bytes, bytes]]) -> list[tuple[int, int, int, int]]:
    """Rows of an `e` column as (commit_ts, offset, length, crc32): what the log's reads take.

    Replay does this for every event, so a row is one unpacking: an event's key ends in its commit_ts.
    """
    unpack = _SECTION_READ.unpack
    try:
        return [unpack(key[-8:] + value) for key, value in rows]
    except StructError as error:
        raise ViewDamagedError("a row of an event column that is not a section pointer") from error


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
