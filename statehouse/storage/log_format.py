"""The bytes of the event log: constants, and pure encoding and decoding. `docs/formats.md` is the same in prose.

    log      = segment+                                         one file each, called <first_ts:020d>.log
    segment  = header record* end
    header   = magic | version u32 | store_id 16 bytes | first_ts u64 | chain_before 32 bytes | crc32 u32
    record   = length u32 | chain 32 bytes | payload
    end      = end of file, or zeros up to it

Integers are big-endian. All of the format lives here and nowhere else; nothing here reads or writes a file.
"""

import hashlib
import re
import struct
from typing import Final, NamedTuple
from zlib import crc32

from attrs import frozen

__all__ = [
    "AFTER_SYNC",
    "CHAIN_BYTES",
    "FORMAT_VERSION",
    "HEADER_BYTES",
    "LENGTH",
    "LENGTH_BYTES",
    "MAGIC",
    "MAX_PAYLOAD_BYTES",
    "NEXT_SEGMENT_NAME",
    "PAYLOAD_START",
    "RECORD_OVERHEAD_BYTES",
    "STORE_ID_BYTES",
    "HeaderError",
    "LogHead",
    "LogRecordAt",
    "NewerHeaderError",
    "Placement",
    "SegmentHeader",
    "decode_header",
    "encode_header",
    "encode_record",
    "genesis_chain",
    "next_chain",
    "segment_first_ts",
    "segment_name",
]

MAGIC: Final = b"SHLOG\r\n\x1a"
"""Not text: a transfer that changes line ends, or stops at Ctrl-Z, breaks it at once (as PNG's does)."""
FORMAT_VERSION: Final = 1
STORE_ID_BYTES: Final = 16
CHAIN_BYTES: Final = 32

_HEADER: Final = struct.Struct(">8sI16sQ32s")
_HEADER_CRC: Final = struct.Struct(">I")
_VERSION_AT: Final = slice(8, 12)
HEADER_BYTES: Final = _HEADER.size + _HEADER_CRC.size

LENGTH: Final = struct.Struct(">I")
LENGTH_BYTES: Final = LENGTH.size
RECORD_OVERHEAD_BYTES: Final = LENGTH_BYTES + CHAIN_BYTES

AFTER_SYNC: Final = 0x8000_0000
"""Set in a record's length: everything before the record had been synced when it was written."""
MAX_PAYLOAD_BYTES: Final = 0x7FFF_FFFF

PAYLOAD_START: Final = b"\x0a"
"""Every payload begins with this byte (the tag of LogRecord's only field). It is what lets the reader find its place
again behind a damaged record without trying every offset; to the log a payload is opaque otherwise."""

NEXT_SEGMENT_NAME: Final = "next.tmp"
_SEGMENT_NAME: Final = re.compile(r"([0-9]{20})\.log", re.ASCII)


class HeaderError(ValueError):
    """The bytes are not a segment header."""


class NewerHeaderError(HeaderError):
    """The bytes are the header of a format that this version does not know. `version` is its number."""

    def __init__(self, version: int) -> None:
        super().__init__(f"written by a newer Statehouse: format {version}, this one reads {FORMAT_VERSION}")
        self.version = version


@frozen
class LogHead:
    """A point in the log: the last commit up to it (0: none yet) and the chain value there."""

    commit_ts: int
    chain: bytes


class Placement(NamedTuple):
    """Where a payload stands: its segment (called by its first commit_ts) and the offset of its first byte.

    A named tuple and not an attrs class, as is LogRecordAt: one is made for every record written, and it is the
    cheaper of the two.
    """

    segment: int
    offset: int


class LogRecordAt(NamedTuple):
    """A verified record, and where it stands. `chain` is the value after it."""

    commit_ts: int
    chain: bytes
    placement: Placement
    payload: bytes


@frozen
class SegmentHeader:
    """What a segment says of itself: its store, its first commit_ts, and the chain value before that."""

    store_id: bytes
    first_ts: int
    chain_before: bytes


def encode_header(header: SegmentHeader) -> bytes:
    """The `HEADER_BYTES` bytes that a segment begins with."""
    fields = _HEADER.pack(MAGIC, FORMAT_VERSION, header.store_id, header.first_ts, header.chain_before)
    return fields + _HEADER_CRC.pack(crc32(fields))


def decode_header(chunk: bytes) -> SegmentHeader:
    """Read a header from the first bytes of a segment. HeaderError says what is wrong with it."""
    if len(chunk) < HEADER_BYTES:
        raise HeaderError(f"the header is cut: {len(chunk)} of {HEADER_BYTES} bytes")
    fields = chunk[: _HEADER.size]
    (crc,) = _HEADER_CRC.unpack_from(chunk, _HEADER.size)
    magic, version, store_id, first_ts, chain_before = _HEADER.unpack(fields)
    if magic != MAGIC:
        raise HeaderError("the header does not begin with the magic bytes of an event log segment")
    if version > FORMAT_VERSION:
        # A newer format may have its checksum elsewhere. But when the checksum is good for our version number, a bit
        # of the number has flipped, and sending the operator after a newer release would be wrong.
        ours = bytearray(fields)
        ours[_VERSION_AT] = LENGTH.pack(FORMAT_VERSION)
        if crc32(ours) != crc:
            raise NewerHeaderError(version)
    if version != FORMAT_VERSION or crc32(fields) != crc:
        raise HeaderError("the header's checksum does not match")
    return SegmentHeader(store_id, first_ts, chain_before)


def genesis_chain(store_id: bytes) -> bytes:
    """The chain value before commit 1. It differs from store to store, so another store's records never verify."""
    return hashlib.sha256(store_id).digest()


def next_chain(chain: bytes, length_field: bytes, payload: bytes) -> bytes:
    """The chain value after a record: SHA-256 of the value before, the length as stored with its flag, the payload."""
    return hashlib.sha256(chain + length_field + payload).digest()


def encode_record(chain: bytes, payload: bytes, *, after_sync: bool) -> bytes:
    """One record behind the chain value `chain`. `EventLog.append` does the same inline, for a whole group."""
    length_field = LENGTH.pack(len(payload) | AFTER_SYNC if after_sync else len(payload))
    return length_field + next_chain(chain, length_field, payload) + payload


def segment_name(first_ts: int) -> str:
    """The file name of the segment that begins at `first_ts`."""
    return f"{first_ts:020d}.log"


def segment_first_ts(name: str) -> int | None:
    """The commit_ts that a segment's file name says; None when it is not the name of a segment."""
    match = _SEGMENT_NAME.fullmatch(name)
    return int(match[1]) if match else None
